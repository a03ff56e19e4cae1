//! The internet's name server: answers A and AAAA from a list, and keeps what was asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Answers of one name: the first to the first question, and so on; the last one stays.
type Zone = BTreeMap<String, Vec<Vec<IpAddr>>>;

pub struct Names {
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Names {
    pub fn serve(socket: std::net::UdpSocket, zone: Zone) -> Self {
        let socket = UdpSocket::from_std(socket).expect("a socket for tokio");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let mut counts: BTreeMap<(String, u16), usize> = BTreeMap::new();
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let query = &buffer[..length];
                let Some((name, kind, end)) = question(query) else { continue };
                log.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
                let count = counts.entry((name.clone(), kind)).or_default();
                let answers =
                    zone.get(&name).map(|answers| &answers[(*count).min(answers.len() - 1)]);
                *count += 1;
                let reply = reply(&query[..end], kind, answers.map(Vec::as_slice));
                socket.send_to(&reply, from).await.ok();
            }
        });
        Self { asked, _task: AbortOnDropHandle::new(task) }
    }

    /// Every name that was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The name and type that are asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

fn reply(question: &[u8], kind: u16, found: Option<&[IpAddr]>) -> Vec<u8> {
    let records: Vec<Vec<u8>> = found
        .unwrap_or_default()
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) if kind == 1 => Some(address.octets().to_vec()),
            IpAddr::V6(address) if kind == 28 => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut reply = question[..2].to_vec();
    // An answer, recursion was asked for and is there; 3: no such name.
    reply.extend([0x81, if found.is_some() { 0x80 } else { 0x83 }]);
    reply.extend([0, 1, 0, u8::try_from(records.len()).expect("few records"), 0, 0, 0, 0]);
    reply.extend_from_slice(&question[12..]);
    for record in records {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0, 0]);
        reply.push(u8::try_from(record.len()).expect("an address"));
        reply.extend(record);
    }
    reply
}
