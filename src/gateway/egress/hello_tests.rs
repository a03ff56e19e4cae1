use std::sync::Arc;

use super::*;

/// What a real client sends for `name`.
pub fn real(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("written");
    bytes
}

pub fn vector(width: usize, content: &[u8]) -> Vec<u8> {
    [&content.len().to_be_bytes()[8 - width..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

fn name_extension(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0][..], &vector(2, name)].concat()))
}

fn body(extensions: &[u8]) -> Vec<u8> {
    let front = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    [front, vector(2, extensions)].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[CLIENT_HELLO][..], &vector(3, body)].concat()
}

/// The message in records of `size` bytes.
pub fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|piece| [vec![22, 3, 1], vector(2, piece)].concat()).collect()
}

fn with(extensions: &[u8]) -> Parsed {
    parse(&records(&message(&body(extensions)), MAX))
}

fn hello(name: &str) -> Parsed {
    Parsed::Hello { sni: Some(name.to_owned()) }
}

fn is_invalid(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Invalid(_))
}

#[test]
fn the_name_is_found_in_a_real_hello_only_once_it_is_whole() {
    let bytes = real("api.example.com");
    assert_eq!(parse(&bytes), hello("api.example.com"));
    for end in 0..bytes.len() {
        assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "{end} bytes");
    }
    // What follows in records of its own, such as early data, is not looked at.
    assert_eq!(parse(&[&bytes[..], &[23, 3, 3, 0, 1, 9]].concat()), hello("api.example.com"));
}

#[test]
pub fn records_may_cut_it_anywhere() {
    let whole = &real("a.example.org")[5..];
    for size in [1, 2, 3, 4, 5, 7, 50, 100, whole.len() - 1, whole.len()] {
        let cut = records(whole, size);
        assert_eq!(parse(&cut), hello("a.example.org"), "in records of {size}");
        assert_eq!(parse(&cut[..cut.len() - 1]), Parsed::Incomplete, "in records of {size}");
    }
}

#[test]
fn a_hello_without_a_name_is_a_hello() {
    assert_eq!(parse(&real("127.0.0.1")), Parsed::Hello { sni: None });
    assert_eq!(with(&extension(43, &[2, 3, 4])), Parsed::Hello { sni: None });
    let bare = &body(&[])[..2 + 32 + 1 + 4 + 2];
    assert_eq!(parse(&records(&message(bare), MAX)), Parsed::Hello { sni: None });
}

#[test]
fn an_encrypted_hello_does_not_hide_the_outer_name() {
    let both = [name_extension(b"outer.example.com"), extension(0xfe0d, &[0; 300])].concat();
    assert_eq!(with(&both), hello("outer.example.com"));
}

#[test]
fn names_that_could_be_read_in_two_ways_are_refused() {
    let twice = [name_extension(b"a.com"), name_extension(b"b.com")].concat();
    assert!(is_invalid(&with(&twice)));
    let entry = |name: &[u8]| [&[0][..], &vector(2, name)].concat();
    let list = extension(0, &vector(2, &[entry(b"a.com"), entry(b"b.com")].concat()));
    assert!(is_invalid(&with(&list)));
    let trailing = extension(0, &[vector(2, &entry(b"a.com")), vec![0]].concat());
    assert!(is_invalid(&with(&trailing)));
    let unknown = extension(0, &vector(2, &[&[1][..], &vector(2, b"a.com")].concat()));
    assert!(is_invalid(&with(&unknown)));
    for name in [&b""[..], b"a.com\0", b"a com", b"a\xffcom", b"a.com\n"] {
        assert!(is_invalid(&with(&name_extension(name))), "{name:?}");
    }
}

#[test]
fn what_is_no_client_hello_is_refused_at_its_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", b"\x15", b"\x80\x2e\x01", b"\x16\x02"] {
        assert!(is_invalid(&parse(bytes)), "{bytes:?}");
    }
    // A ServerHello; an empty record; a record and a message that are too long.
    for bytes in [
        &[22, 3, 1, 0, 1, 2][..],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0x40, 1],
        &[22, 3, 1, 0, 4, 1, 1, 0, 0],
        // Another type of record in the middle of the message.
        &[22, 3, 1, 0, 1, 1, 23, 3, 1],
    ] {
        assert!(is_invalid(&parse(bytes)), "{bytes:?}");
    }
    let two = [message(&body(&[])), message(&body(&[]))].concat();
    assert!(is_invalid(&parse(&records(&two, MAX))));
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = message(&body(&name_extension(b"a.example.com")));
    assert_eq!(parse(&records(&good, MAX)), hello("a.example.com"));
    for at in 0..good.len() {
        for value in [0, 1, 2, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            // Whatever it is taken for, it is never taken for another name's hello.
            if let Parsed::Hello { sni: Some(name) } = parse(&records(&bad, MAX)) {
                assert!(name.len() == "a.example.com".len(), "{at} {value} {name}");
            }
        }
    }
    let mut cut = message(&body(&name_extension(b"a.example.com")));
    cut.truncate(cut.len() - 3);
    let length = cut.len() - 4;
    cut[1..4].copy_from_slice(&length.to_be_bytes()[5..]);
    assert!(is_invalid(&parse(&records(&cut, MAX))));
}

#[test]
fn random_bytes_do_no_harm() {
    // A small generator with a fixed seed; what it finds can be found again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seed = real("api.example.com");
    for _ in 0..20_000 {
        let mut bytes = seed.clone();
        for _ in 0..=next() % 8 {
            let at = usize::try_from(next()).unwrap_or_default() % bytes.len();
            bytes[at] = next().to_le_bytes()[0];
        }
        bytes.truncate(usize::try_from(next()).unwrap_or_default() % (bytes.len() + 1));
        let _ = parse(&bytes);
    }
}
