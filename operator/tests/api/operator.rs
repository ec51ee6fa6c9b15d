//! The real binary, as a process of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::Cluster;
use crate::wait::eventually;

/// A running operator; killed when dropped.
pub struct Operator {
    pub collector: SocketAddr,
    admin: SocketAddr,
    child: Child,
    log: std::path::PathBuf,
}

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

impl Operator {
    /// Starts it with short times; `arguments` come last and win.
    pub fn start(cluster: &Cluster, identity: &str, arguments: &[&str]) -> Self {
        let (collector, admin) = (free(), free());
        let log = std::env::temp_dir().join(format!("{}-{identity}-{}.log", cluster.namespace, admin.port()));
        let output = File::create(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_leyline-operator"))
            .args(["run", "--namespace", &cluster.namespace, "--identity", identity])
            .args(["--listen", &collector.to_string(), "--admin", &admin.to_string()])
            .args([
                "--settle-after",
                "1s",
                "--lease-duration",
                "4s",
                "--lease-renew",
                "1s",
            ])
            .args(["--log", "info,leyline_operator=debug"])
            .args(arguments)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("the operator starts");
        Self {
            collector,
            admin,
            child,
            log,
        }
    }

    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let text = async {
            let mut stream = TcpStream::connect(self.admin).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        let text = text.await.map_err(|error| error.to_string())?;
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or("no status")?;
        Ok((status, text))
    }

    pub async fn ready(&self) {
        eventually("the operator is ready", async || {
            match self.get("/readyz").await? {
                (200, _) => Ok(()),
                (code, _) => Err(format!("{code}\n{}", self.log())),
            }
        })
        .await;
    }

    /// Waits until this one leads.
    pub async fn leads(&self) {
        eventually("the operator leads", async || {
            match self.metric("leyline_leader").await? {
                1.0 => Ok(()),
                other => Err(format!("{other}\n{}", self.log())),
            }
        })
        .await;
    }

    /// The value of one line of `/metrics`; 0 when the line is absent.
    pub async fn metric(&self, line: &str) -> Result<f64, String> {
        let (_, text) = self.get("/metrics").await?;
        let value = text
            .lines()
            .find_map(|one| one.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0.0))
    }

    /// Waits until a metric has at least this value.
    pub async fn counts(&self, line: &str, least: f64) {
        eventually(&format!("{line} is at least {least}"), async || {
            match self.metric(line).await? {
                value if value >= least => Ok(()),
                value => Err(format!("{value}\n{}", self.log())),
            }
        })
        .await;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("alive");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
            * 1024
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGTERM; how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("signalled");
        eventually("the operator ends", async || {
            self.child
                .try_wait()
                .expect("a child")
                .ok_or_else(|| "it still runs".to_owned())
        })
        .await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the operator\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}
