#!/usr/bin/perl
# Routes the names of tests/vectors/slots.json as a program in another language would:
# from the hash's definition and the topology's JSON, with nothing of ours.
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

open( my $file, '<:raw', $ARGV[0] ) or die "cannot open $ARGV[0]: $!\n";
my $golden = decode_json( do { local $/; <$file> } );
my $topology = $golden->{topology};
my $agreed   = 0;
for my $entry ( @{ $golden->{names} } ) {
    my $name = $entry->{name};
    $name =~ s/!.*$/!/s;
    utf8::encode($name);
    my $hash  = murmur3($name);
    my $slot  = $hash & 4095;
    my $shard = $topology->{shards}[ hex substr( $topology->{table}, 2 * $slot, 2 ) ]{id};
    die "$entry->{name}: hash $hash, slot $slot, shard $shard\n"
        unless $hash == $entry->{hash} && $slot == $entry->{slot} && $shard eq $entry->{shard};
    $agreed++;
}
print "$agreed names agree\n";
