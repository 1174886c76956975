#!/usr/bin/perl
# Routes the names of tests/vectors/slots.json and topologies.json as a program in another language
# would: from the hash's definition and the topology's JSON, with nothing of ours.
use strict;
use warnings;
use integer;    # 64-bit products wrap around; the low 32 bits are all that counts
use JSON::PP;

sub low { return $_[0] & 0xFFFFFFFF }
sub shifted { return low( low( $_[0] ) >> $_[1] ) }
sub rotated { return low( $_[0] << $_[1] ) | shifted( $_[0], 32 - $_[1] ) }
sub scrambled { return low( rotated( low( $_[0] * 0xCC9E2D51 ), 15 ) * 0x1B873593 ) }

sub murmur3 {
    my ($data) = @_;
    my $state = 0;
    my @bytes = unpack( 'C*', $data );
    while ( @bytes >= 4 ) {
        my ( $a, $b, $c, $d ) = splice( @bytes, 0, 4 );
        $state ^= scrambled( $a | $b << 8 | $c << 16 | $d << 24 );
        $state = low( rotated( $state, 13 ) * 5 + 0xE6546B64 );
    }
    if (@bytes) {
        my $tail = 0;
        $tail = $tail << 8 | $_ for reverse @bytes;
        $state ^= scrambled($tail);
    }
    $state = low( $state ^ length $data );
    $state = low( ( $state ^ shifted( $state, 16 ) ) * 0x85EBCA6B );
    $state = low( ( $state ^ shifted( $state, 13 ) ) * 0xC2B2AE35 );
    return low( $state ^ shifted( $state, 16 ) );
}

sub read_json {
    open( my $file, '<:raw', $_[0] ) or die "cannot open $_[0]: $!\n";
    return decode_json( do { local $/; <$file> } );
}

sub hash_of {
    my ($name) = @_;
    $name =~ s/!.*$/!/s;
    utf8::encode($name);
    return murmur3($name);
}

# The shard at a slot of one of the topology's tables.
sub owner {
    my ( $topology, $table, $slot ) = @_;
    my $width = @{ $topology->{shards} } <= 256 ? 2 : 3;
    return $topology->{shards}[ hex substr( $topology->{$table}, $width * $slot, $width ) ];
}

# Where the slot is served as well, or undef.
sub other_home {
    my ( $topology, $slot ) = @_;
    my ($table) = grep { defined $topology->{$_} } qw(pending previous);
    return undef unless defined $table;
    my ( $here, $there ) = map { owner( $topology, $_, $slot ) } 'table', $table;
    return $there->{id} eq $here->{id} || $there->{state} eq 'down' ? undef : $there->{id};
}

my $golden = read_json( $ARGV[0] );
my $agreed = 0;
for my $entry ( @{ $golden->{names} } ) {
    my $hash  = hash_of( $entry->{name} );
    my $slot  = $hash & 4095;
    my $shard = owner( $golden->{topology}, 'table', $slot )->{id};
    die "$entry->{name}: hash $hash, slot $slot, shard $shard\n"
        unless $hash == $entry->{hash} && $slot == $entry->{slot} && $shard eq $entry->{shard};
    $agreed++;
}
for my $vector ( @{ read_json( $ARGV[1] )->{topologies} } ) {
    for my $place ( @{ $vector->{places} } ) {
        my $slot  = hash_of( $place->{name} ) & 4095;
        my $shard = owner( $vector->{topology}, 'table', $slot )->{id};
        my $other = other_home( $vector->{topology}, $slot ) // 'none';
        die "$vector->{about}: $place->{name}: $shard, $other\n"
            unless $shard eq $place->{shard} && $other eq ( $place->{other} // 'none' );
        $agreed++;
    }
}
print "$agreed names agree\n";
