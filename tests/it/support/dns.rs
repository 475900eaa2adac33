//! DNS servers: dnsmasq as it is, and one that answers whatever a test wants.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Tree, free_port, proxy::signal, until};

/// A dnsmasq of a test's own. It knows names below `.test` and nothing else; all its answers hold for a second.
pub struct Dnsmasq {
    child: Child,
    tree: Tree,
    port: u16,
    records: Vec<String>,
}

impl Dnsmasq {
    /// Knows these hosts, each a line of a hosts file: `127.0.0.1 app.test`.
    #[track_caller]
    pub fn knowing(hosts: &[&str]) -> Self {
        Self::with(hosts, &[])
    }

    /// The same with options of dnsmasq, such as `srv-host=_http._tcp.app.test,a.test,80,0,1`.
    #[track_caller]
    pub fn with(hosts: &[&str], records: &[&str]) -> Self {
        let tree = Tree::new();
        tree.write("hosts", hosts.join("\n"));
        let port = free_port();
        let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
        let mut dns = Self { child: run(&tree, port, &records), tree, port, records };
        dns.wait();
        dns
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Goes over to other hosts.
    pub fn know(&self, hosts: &[&str]) {
        self.tree.write("hosts", hosts.join("\n"));
        signal(self.child.id(), "HUP");
    }

    /// Goes over to other records: a dnsmasq that is started anew.
    pub fn restart_with(&mut self, records: &[&str]) {
        self.kill();
        self.records = records.iter().map(|record| (*record).to_owned()).collect();
        self.restart();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with other hosts.
    #[track_caller]
    pub fn restart_knowing(&mut self, hosts: &[&str]) {
        self.tree.write("hosts", hosts.join("\n"));
        self.restart();
    }

    #[track_caller]
    fn restart(&mut self) {
        self.child = run(&self.tree, self.port, &self.records);
        self.wait();
    }

    #[track_caller]
    fn wait(&mut self) {
        until("dnsmasq is up", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "dnsmasq ended: {}", self.tree.read("log"));
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(tree: &Tree, port: u16, records: &[String]) -> Child {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let log = std::fs::File::create(tree.path("log")).unwrap();
    Command::new("dnsmasq")
        .env("PATH", path)
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="])
        .args(["--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", "--log-facility=-"])
        .args(["--local=/test/", "--local-ttl=1", "--no-negcache"])
        .arg(format!("--port={port}"))
        .arg(format!("--addn-hosts={}", tree.path("hosts").display()))
        .args(records.iter().map(|record| format!("--{record}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("dnsmasq is installed: tests/install")
}

/// What a [`ToldDns`] answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These addresses, of the family that is asked for, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Another name's addresses.
    Foreign(Vec<IpAddr>),
    /// The name is an alias of another.
    Alias(&'static str),
    /// Nothing, with this response code.
    Code(u8),
    /// Bytes that are no response.
    Rubbish,
    Silence,
}

/// A DNS server that answers by name whatever a test wants.
pub struct ToldDns {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<Vec<(&'static str, Answer)>>,
    questions: AtomicUsize,
    stopped: AtomicBool,
}

impl ToldDns {
    #[track_caller]
    pub fn start(answers: &[(&'static str, Answer)]) -> Self {
        let (udp, tcp) = both();
        let port = udp.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.to_vec()),
            questions: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let of_udp = shared.clone();
        thread::spawn(move || {
            let mut question = [0; 4096];
            while !of_udp.stopped.load(Ordering::Acquire) {
                let Ok((length, from)) = udp.recv_from(&mut question) else { continue };
                if let Some(response) = of_udp.respond(&question[..length], 1232) {
                    let _ = udp.send_to(&response, from);
                }
            }
        });
        let of_tcp = shared.clone();
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                if of_tcp.stopped.load(Ordering::Acquire) {
                    return;
                }
                let shared = of_tcp.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Answers so from now on.
    pub fn tell(&self, name: &'static str, answer: Answer) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.retain(|(known, _)| *known != name);
        answers.push((name, answer));
    }

    pub fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::Relaxed)
    }
}

impl Drop for ToldDns {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        let _ = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
    }
}

/// Sockets of both transports at one port.
fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for UDP and TCP");
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        loop {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                return;
            }
            let mut question = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            let Some(response) = self.respond(&question, usize::from(u16::MAX)) else { continue };
            let length = u16::try_from(response.len()).unwrap().to_be_bytes();
            if stream.write_all(&[&length[..], &response].concat()).is_err() {
                return;
            }
        }
    }

    fn respond(&self, question: &[u8], most: usize) -> Option<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let (name, end) = name_at(question, 12)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        let answers = self.answers.lock().unwrap().clone();
        let answer = answers.into_iter().find(|(known, _)| *known == name).map(|(_, answer)| answer);
        let mut records = Vec::new();
        let mut code = 0;
        match answer.unwrap_or(Answer::Code(3)) {
            Answer::Silence => return None,
            Answer::Rubbish => return Some([&question[..2], b"rubbish".as_slice()].concat()),
            Answer::Code(told) => code = told,
            Answer::Alias(target) => records.push(record(&[0xc0, 12], 5, 1, &labels(target))),
            Answer::Addresses(ips, ttl) => {
                records.extend(ips.iter().filter_map(|ip| address(&[0xc0, 12], *ip, ttl, kind)));
            }
            Answer::Foreign(ips) => {
                records.extend(ips.iter().filter_map(|ip| address(&labels("foreign.test"), *ip, 1, kind)));
            }
        }
        let size: usize = records.iter().map(Vec::len).sum();
        let is_cut = end + 4 + size > most;
        if is_cut {
            records.clear();
        }
        let count = u16::try_from(records.len()).unwrap().to_be_bytes();
        let flags = [0x84 | if is_cut { 2 } else { 0 } | question[2] & 1, 0x80 | code];
        let mut response = [&question[..2], &flags, &[0, 1], &count, &[0, 0, 0, 0]].concat();
        response.extend(&question[12..end + 4]);
        response.extend(records.concat());
        Some(response)
    }
}

fn name_at(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), start);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}

fn labels(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()][..], label.as_bytes()].concat();
    let labels: Vec<Vec<u8>> = name.split('.').map(label).collect();
    [&labels.concat()[..], &[0]].concat()
}

fn address(name: &[u8], ip: IpAddr, ttl: u32, asked: u16) -> Option<Vec<u8>> {
    let (kind, data) = match ip {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (28, ip.octets().to_vec()),
    };
    (kind == asked).then(|| record(name, kind, ttl, &data))
}

fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [name, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}
