#!/usr/bin/env perl
# Reads the golden envelopes with nothing but core Perl and docs/wire-format.md: another language can.
# Prints how many vectors it checked; dies at the first that it reads otherwise.
use strict;
use warnings;
use Digest::SHA qw(sha256);
use JSON::PP;

# Values keep their msgpack type, which Perl itself would blur.
sub typed { return { type => $_[0], value => $_[1] } }

sub read_value {
    my ($data, $at) = @_;
    my $take = sub {
        my ($count) = @_;
        die "truncated\n" if $$at + $count > length $$data;
        my $bytes = substr $$data, $$at, $count;
        $$at += $count;
        return $bytes;
    };
    my $byte   = ord $take->(1);
    my $many   = sub { my ($count) = @_; return [map { read_value($data, $at) } 1 .. $count] };
    my $number = sub { my ($format, $size) = @_; return unpack $format, $take->($size) };
    my $map    = sub {
        my @items = map { [read_value($data, $at), read_value($data, $at)] } 1 .. $_[0];
        for my $item (@items) { die "a key is no str\n" if $item->[0]{type} ne 'str' }
        return typed(map => { map { $_->[0]{value} => $_->[1] } @items });
    };
    return typed(int => $byte)                                 if $byte <= 0x7f;
    return $map->($byte & 0x0f)                                if $byte <= 0x8f;
    return typed(array => $many->($byte & 0x0f))               if $byte <= 0x9f;
    return typed(str => $take->($byte & 0x1f))                 if $byte <= 0xbf;
    return typed(int => $byte - 256)                           if $byte >= 0xe0;
    return typed(nil => undef)                                 if $byte == 0xc0;
    return typed(bool => $byte == 0xc3 ? 1 : 0)                if $byte == 0xc2 || $byte == 0xc3;
    return typed(bin => $take->($number->('C', 1)))            if $byte == 0xc4;
    return typed(bin => $take->($number->('n', 2)))            if $byte == 0xc5;
    return typed(bin => $take->($number->('N', 4)))            if $byte == 0xc6;
    return typed(float => $number->('f>', 4))                  if $byte == 0xca;
    return typed(float => $number->('d>', 8))                  if $byte == 0xcb;
    my %integers = (
        0xcc => ['C', 1], 0xcd => ['n', 2], 0xce => ['N', 4], 0xcf => ['Q>', 8],
        0xd0 => ['c', 1], 0xd1 => ['s>', 2], 0xd2 => ['l>', 4], 0xd3 => ['q>', 8],
    );
    return typed(int => $number->(@{ $integers{$byte} }))      if $integers{$byte};
    return typed(str => $take->($number->('C', 1)))            if $byte == 0xd9;
    return typed(str => $take->($number->('n', 2)))            if $byte == 0xda;
    return typed(str => $take->($number->('N', 4)))            if $byte == 0xdb;
    return typed(array => $many->($number->('n', 2)))          if $byte == 0xdc;
    return typed(array => $many->($number->('N', 4)))          if $byte == 0xdd;
    return $map->($number->('n', 2))                           if $byte == 0xde;
    return $map->($number->('N', 4))                           if $byte == 0xdf;
    die sprintf "type byte %02x is not allowed\n", $byte;
}

sub whole {
    my ($data) = @_;
    my $at    = 0;
    my $value = read_value(\$data, \$at);
    die "bytes after the end\n" if $at != length $data;
    return $value;
}

sub expect {
    my ($value, @types) = @_;
    die "@types expected, not $value->{type}\n" if !grep { $_ eq $value->{type} } @types;
    return $value->{value};
}

sub read_doubt {
    my $parts = expect($_[0], 'array');
    die "bad doubt\n" if @$parts != 2;
    my $doubt = [expect($parts->[0], 'str'), expect($parts->[1], 'int')];
    die "bad lane\n" if $doubt->[0] !~ /\A(?:inbox|group)\z/;
    return $doubt;
}

sub read_envelope {
    my ($data) = @_;
    my $fields  = expect(whole($data), 'array');
    my $version = expect($fields->[0] // die("empty\n"), 'int');
    die "version $version\n" if $version != 1;
    die "too few fields\n"   if @$fields < 6;
    my (undef, $kind, $ttl_ms, $channel, $marks, $body, $exclude, $epoch) = @$fields;
    my %envelope = (
        kind    => expect($kind,    'int'),
        ttl_ms  => expect($ttl_ms,  'int'),
        channel => expect($channel, 'str', 'nil'),
        body    => expect($body,    'bin'),
        marks   => expect($marks,   'map', 'nil'),
        epoch   => $epoch ? expect($epoch, 'int') : 0,
    );
    my $excluded = defined $exclude ? expect($exclude, 'array', 'nil') // [] : [];
    $envelope{exclude} = [map { expect($_, 'str') } @$excluded];
    for my $name (@{ $envelope{exclude} }) {
        die "bad excluded name\n" if $name !~ /\A[A-Za-z0-9._-]+(?:[!?][A-Za-z0-9._-]*)?\z/;
    }
    die "bad epoch\n"    if $envelope{epoch} < 0;
    die "unknown kind\n" if $envelope{kind} != 0 && $envelope{kind} != 1;
    die "bad ttl\n"      if $envelope{ttl_ms} < 0 || $envelope{ttl_ms} > 2**53;
    my $name = $envelope{channel};
    die "bad channel\n" if defined $name && $name !~ /\A[A-Za-z0-9._-]+![A-Za-z0-9._-]*\z/;
    for my $mark (values %{ $envelope{marks} // {} }) {
        my $parts = expect($mark, 'array');
        die "bad mark\n" if @$parts != 3 && @$parts != 4;
        $_ = expect($_, 'str', 'int', 'nil') for @$parts[0 .. 2];
        for my $doubts (@$parts[3 .. $#$parts]) {
            $doubts = [map { read_doubt($_) } @{ expect($doubts, 'array') }];
        }
        $mark = $parts;
    }
    return \%envelope;
}

# What JSON can show of a value, with bytes as {"$hex": ...}.
sub shown {
    my ($value) = @_;
    my ($type, $inner) = @$value{qw(type value)};
    return [map { shown($_) } @$inner] if $type eq 'array';
    return { map { utf8_text($_) => shown($inner->{$_}) } keys %$inner } if $type eq 'map';
    return utf8_text($inner)                              if $type eq 'str';
    return { '$hex' => unpack 'H*', $inner }              if $type eq 'bin';
    return $inner ? JSON::PP::true() : JSON::PP::false()  if $type eq 'bool';
    return $inner;
}

sub utf8_text { my ($bytes) = @_; utf8::decode($bytes) or die "no UTF-8\n"; return $bytes }

my $json = JSON::PP->new->canonical->allow_nonref->utf8;

sub same {
    my ($what, $found, $expected) = @_;
    my ($one, $other) = map { $json->encode($_) } $found, $expected;
    die "$what: read $one, expected $other\n" if $one ne $other;
    return;
}

open my $file, '<:raw', $ARGV[0] or die "cannot read $ARGV[0]: $!\n";
my $vectors = $json->decode(do { local $/ = undef; <$file> });
my $checked = 0;

for my $vector (@{ $vectors->{envelopes} }) {
    my $found = read_envelope(pack 'H*', $vector->{hex});
    same("$vector->{what}, $_", $found->{$_}, $vector->{$_}) for qw(kind ttl_ms channel marks epoch);
    same("$vector->{what}, exclude", $found->{exclude}, $vector->{exclude} // []);
    same("$vector->{what}, body", unpack('H*', $found->{body}), $vector->{body_hex});
    $checked++;
}
for my $vector (@{ $vectors->{fingerprints} }) {
    my $digest = sha256("$vector->{group}\n" . pack 'H*', $vector->{hex});
    same($vector->{what}, (unpack 'Q>', $digest) >> 1, $vector->{fingerprint});
    $checked++;
}
for my $vector (@{ $vectors->{bodies} }) {
    same($vector->{what}, shown(whole(pack 'H*', $vector->{hex})), $vector->{message});
    $checked++;
}
for my $vector (@{ $vectors->{malformed} }) {
    die "$vector->{what} was read\n" if eval { read_envelope(pack 'H*', $vector->{hex}); 1 };
    $checked++;
}
print "$checked\n";
