//! `GIT binary patch`: a whole content, deflated, in git's own base 85.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

const LETTERS: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// Bytes that one line stands for.
const LINE: usize = 52;

pub(super) fn literal(content: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::default());
    deflate.write_all(content)?;
    let deflated = deflate.finish()?;
    writeln!(out, "GIT binary patch\nliteral {}", content.len())?;
    for line in deflated.chunks(LINE) {
        // The number of bytes as a letter: A to Z are 1 to 26, a to z the rest.
        let length = u8::try_from(line.len()).unwrap_or_default();
        out.push(if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 });
        for four in line.chunks(4) {
            let mut word = [0; 4];
            word[..four.len()].copy_from_slice(four);
            let mut number = u32::from_be_bytes(word);
            let mut letters = [0; 5];
            for letter in letters.iter_mut().rev() {
                *letter = LETTERS[(number % 85) as usize];
                number /= 85;
            }
            out.extend(letters);
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    Ok(())
}
