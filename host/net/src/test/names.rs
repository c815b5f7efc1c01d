//! A DNS server that answers what a test says, and something else the next time if a test says so.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// A server that runs until the runtime of the test ends. What it answers is never to be remembered.
pub(super) struct Names {
    pub(super) address: SocketAddr,
    known: Arc<Mutex<HashMap<(String, u16), Known>>>,
}

/// What is answered about one type of one name.
#[derive(Default)]
struct Known {
    /// The next answer comes first; the last one stays.
    answers: VecDeque<Vec<IpAddr>>,
    alias: Option<String>,
    asked: usize,
}

impl Names {
    pub(super) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names = Self { address: socket.local_addr().unwrap(), known: Arc::default() };
        let known = Arc::clone(&names.known);
        tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let answer = answer(&mut known.lock().unwrap(), &question[..length]);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        names
    }

    /// Lets `name` lead to these addresses, and to the next ones the next time it is asked for.
    pub(super) fn set(&self, name: &str, rounds: &[&[&str]]) {
        for (kind, is_kind) in [(A, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (AAAA, IpAddr::is_ipv6)] {
            let parsed = |round: &&[&str]| round.iter().map(|ip| ip.parse().unwrap()).filter(is_kind).collect();
            let answers = rounds.iter().map(parsed).collect();
            let known = Known { answers, ..Known::default() };
            self.known.lock().unwrap().insert((name.to_owned(), kind), known);
        }
    }

    /// Lets `name` be another name for `target`.
    pub(super) fn set_alias(&self, name: &str, target: &str) {
        for kind in [A, AAAA] {
            let known = Known { alias: Some(target.to_owned()), ..Known::default() };
            self.known.lock().unwrap().insert((name.to_owned(), kind), known);
        }
    }

    /// How often the IPv4 addresses of `name` were asked for.
    pub(super) fn asked(&self, name: &str) -> usize {
        self.known.lock().unwrap().get(&(name.to_owned(), A)).map_or(0, |known| known.asked)
    }
}

fn answer(known: &mut HashMap<(String, u16), Known>, question: &[u8]) -> Vec<u8> {
    let (name, end) = read_name(question);
    let kind = u16::from_be_bytes([question[end], question[end + 1]]);
    let mut records = Vec::new();
    let mut count: u16 = 0;
    let mut next = Some(name.to_ascii_lowercase());
    let mut is_known = false;
    while let Some(name) = next.take() {
        let Some(found) = known.get_mut(&(name.clone(), kind)) else { break };
        is_known = true;
        found.asked += 1;
        if let Some(alias) = &found.alias {
            count += 1;
            record(&mut records, &name, CNAME, &written(alias));
            next = Some(alias.clone());
        }
        let ips = if found.answers.len() > 1 { found.answers.pop_front() } else { found.answers.front().cloned() };
        for ip in ips.unwrap_or_default() {
            count += 1;
            match ip {
                IpAddr::V4(ip) => record(&mut records, &name, A, &ip.octets()),
                IpAddr::V6(ip) => record(&mut records, &name, AAAA, &ip.octets()),
            }
        }
    }
    // The number of the question, an answer that is final or says that there is no such name, and one question.
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&question[12..end + 4]);
    answer.extend(records);
    answer
}

/// The name in a question, and where it ends.
fn read_name(question: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8(question[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    (labels.join("."), at + 1)
}

fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn record(records: &mut Vec<u8>, name: &str, kind: u16, data: &[u8]) {
    records.extend(written(name));
    records.extend(kind.to_be_bytes());
    // The Internet, and to be forgotten at once.
    records.extend([0, 1, 0, 0, 0, 0]);
    records.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    records.extend(data);
}
