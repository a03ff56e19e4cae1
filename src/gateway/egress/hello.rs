//! Reads the name out of a TLS `ClientHello` (RFC 8446 §4.1.2, RFC 6066 §3), which a client may have
//! cut into any number of records. Total on any bytes.
//!
//! Only what stands in the open can be read. An `encrypted_client_hello` is let pass, because
//! clients send one with random content as a matter of course: the outer name must be right all
//! the same. Neither that nor a request inside TLS for another host of the same provider ("domain
//! fronting") can be seen without opening the connection: whoever allows a host of a large
//! provider trusts that provider to keep its customers apart.

/// Most bytes of a `ClientHello`, records' heads included. Real ones have 200 to 2000.
pub const MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Well so far; more bytes are needed.
    Incomplete,
    Hello {
        sni: Option<String>,
    },
    /// The reason, for the log.
    Invalid(&'static str),
}

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// What `bytes`, from the first that a client sent, are.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut rest = bytes;
    let mut message = Vec::new();
    loop {
        // Each byte is judged as soon as it is there: who speaks no TLS is not waited for.
        match rest {
            [first, ..] if *first != RECORD_HANDSHAKE => {
                return Parsed::Invalid("no TLS handshake");
            }
            [_, major, ..] if *major != 3 => return Parsed::Invalid("no TLS version"),
            [_, _, _, high, low, tail @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > MAX {
                    return Parsed::Invalid("a record of impossible length");
                }
                message.extend_from_slice(&tail[..length.min(tail.len())]);
                match whole(&message) {
                    Ok(Some(body)) if body.len() + 4 == message.len() && length <= tail.len() => {
                        return match client_hello(body) {
                            Some(Ok(sni)) => Parsed::Hello { sni },
                            Some(Err(reason)) => Parsed::Invalid(reason),
                            None => Parsed::Invalid("a ClientHello that is cut off"),
                        };
                    }
                    Ok(Some(_)) => return Parsed::Invalid("more behind the ClientHello"),
                    Ok(None) => {}
                    Err(reason) => return Parsed::Invalid(reason),
                }
                let Some(next) = tail.get(length..) else { return Parsed::Incomplete };
                rest = next;
            }
            _ => return Parsed::Incomplete,
        }
    }
}

/// The body of the handshake message, once it is whole.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    match message {
        [kind, ..] if *kind != CLIENT_HELLO => Err("a handshake that is no ClientHello"),
        [_, a, b, c, body @ ..] => {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > MAX {
                return Err("a ClientHello that is too long");
            }
            Ok(body.get(..length))
        }
        _ => Ok(None),
    }
}

/// Reads from the front; `None` where the bytes end too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes behind their length, which has `width` bytes itself.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

type Sni = Result<Option<String>, &'static str>;

fn client_hello(body: &[u8]) -> Option<Sni> {
    let mut body = Reader(body);
    // Version and random.
    body.take(2 + 32)?;
    if body.vector(1)?.len() > 32 {
        return Some(Err("a session id that is too long"));
    }
    let suites = body.vector(2)?.len();
    if suites < 2 || suites % 2 != 0 || body.vector(1)?.is_empty() {
        return Some(Err("no cipher suites or compression methods"));
    }
    if body.0.is_empty() {
        // Old TLS without any extension, so without a name.
        return Some(Ok(None));
    }
    let mut extensions = Reader(body.vector(2)?);
    if !body.0.is_empty() {
        return Some(Err("more behind the extensions"));
    }
    let mut seen = std::collections::HashSet::new();
    let mut sni = None;
    while !extensions.0.is_empty() {
        let kind = u16::try_from(extensions.number(2)?).ok()?;
        let content = extensions.vector(2)?;
        // Of two names, we and the server might each read another.
        if !seen.insert(kind) {
            return Some(Err("an extension twice"));
        }
        if kind == SERVER_NAME {
            match server_name(content)? {
                Ok(name) => sni = Some(name),
                Err(reason) => return Some(Err(reason)),
            }
        }
    }
    Some(Ok(sni))
}

/// A list that in all of TLS's history has had one entry, of the one type there is.
fn server_name(content: &[u8]) -> Option<Result<String, &'static str>> {
    let mut content = Reader(content);
    let mut list = Reader(content.vector(2)?);
    if list.number(1)? != 0 {
        return Some(Err("a name of unknown type"));
    }
    let name = list.vector(2)?;
    if !list.0.is_empty() || !content.0.is_empty() {
        return Some(Err("more than one name"));
    }
    let fit = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(name).ok().filter(|_| fit);
    Some(name.map(str::to_owned).ok_or("a name with impossible characters"))
}

#[cfg(test)]
#[path = "hello_tests.rs"]
pub mod tests;
