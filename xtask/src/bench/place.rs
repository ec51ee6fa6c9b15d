//! Where the benchmark happens: a client and a server network namespace, one veth between them, nginx in the server's.
//! Each side runs in a cgroup that is named like a pod's, so that the agent treats it as one.
//!
//! Everything made here is removed on drop, also what an earlier run left behind is removed first.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::cpu;
use crate::step::{self, wait_for};

const CLIENT: &str = "leyline-bench-c";
const SERVER: &str = "leyline-bench-s";
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 251, 0, 2);
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 251, 0, 1);
/// First of the ports that nginx listens on besides 80, for the memory figures.
const FIRST_PORT: u16 = 10_000;
/// How many of them.
const PORTS: u16 = 4_000;

/// Uids of the two pods there would be.
const CLIENT_POD: &str = "podbe9c0000-0000-4000-8000-00000000000c";
const SERVER_POD: &str = "podbe9c0000-0000-4000-8000-00000000000d";

/// The two namespaces and nginx.
pub(super) struct Place {
    nginx: Child,
    worker: u32,
    cgroups: Cgroups,
    _folder: tempfile::TempDir,
    _namespaces: Namespaces,
}

/// Installs the load generators and nginx where they are missing.
pub(super) fn ensure_tools() -> Result<()> {
    crate::setup::debian_packages(&["nginx-light", "wrk", "nghttp2-client"])
}

impl Place {
    pub(super) fn new() -> Result<Self> {
        let namespaces = Namespaces::new()?;
        let cgroups = Cgroups::new()?;
        let folder = tempfile::tempdir().context("make a folder for nginx")?;
        fs::write(folder.path().join("1k"), vec![b'x'; 1024]).context("write the page")?;
        let config = folder.path().join("nginx.conf");
        fs::write(&config, nginx_config(folder.path())).context("write nginx's configuration")?;
        let nginx = inside(&cgroups.server(), SERVER, "nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx")?;
        let worker = wait_for("nginx's worker", Duration::from_secs(10), || {
            // One worker; the shell became nginx's master by exec.
            cpu::children(nginx.id())?
                .first()
                .copied()
                .context("no worker yet")
        });
        // Built before `worker` is looked at, so that nginx ends also when the worker never came.
        let mut place = Self {
            nginx,
            worker: 0,
            cgroups,
            _folder: folder,
            _namespaces: namespaces,
        };
        place.worker = worker?;
        Ok(place)
    }

    /// A command in the client's namespace.
    pub(super) fn client(&self, program: &str) -> Command {
        inside(&self.cgroups.client(), CLIENT, program)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{SERVER_ADDRESS}/1k")
    }

    /// nginx's worker: the process that serves.
    pub(super) fn server_pid(&self) -> u32 {
        self.worker
    }

    /// One connection to each of `count` ports.
    pub(super) fn connect_to_ports(&self, count: u16) -> Result<()> {
        ensure!(
            count <= PORTS,
            "at most {} half-edges can be made here",
            PORTS * 2
        );
        // One process, so that it can be put into the client's cgroup.
        let ports = FIRST_PORT..FIRST_PORT + count;
        let script = format!(
            "for ((port = {}; port < {}; port++)); do exec 3<>/dev/tcp/{SERVER_ADDRESS}/$port || exit 1; exec 3>&-; done",
            ports.start, ports.end
        );
        step::output(self.client("bash").args(["-c", &script])).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The worker goes with its master only on an orderly signal.
        #[expect(clippy::cast_possible_wrap, reason = "process ids fit in i32")]
        let master = nix::unistd::Pid::from_raw(self.nginx.id() as i32);
        let _ = nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGTERM);
        drop(self.nginx.wait());
    }
}

/// A command in a cgroup and a network namespace; the process that is started becomes the program by exec.
fn inside(cgroup: &Path, namespace: &str, program: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .args([
            "-c",
            "echo $$ > \"$0\" && exec nsenter --net=\"$1\" -- \"${@:2}\"",
        ])
        .arg(cgroup.join("cgroup.procs"))
        .arg(format!("/run/netns/{namespace}"))
        .arg(program);
    command
}

fn nginx_config(folder: &Path) -> String {
    let folder = folder.display();
    let many: String = (FIRST_PORT..FIRST_PORT + PORTS)
        .map(|port| format!("listen {SERVER_ADDRESS}:{port};\n"))
        .collect();
    format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log /dev/null;\n\
         worker_rlimit_nofile 20000;\nevents {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 100000000;\n\
         client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/fastcgi;\n\
         uwsgi_temp_path {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\n\
         server {{ listen {SERVER_ADDRESS}:80 backlog=4096; root {folder}; }}\n\
         server {{ {many} return 204; }}\n}}\n"
    )
}

/// Two cgroups of the unified hierarchy.
struct Cgroups {
    parent: PathBuf,
}

impl Cgroups {
    fn new() -> Result<Self> {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let root = if unified.exists() {
            unified
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let cgroups = Self {
            parent: root.join("leyline-bench"),
        };
        for folder in [cgroups.client(), cgroups.server()] {
            fs::create_dir_all(&folder).with_context(|| format!("create the cgroup {}", folder.display()))?;
        }
        Ok(cgroups)
    }

    fn client(&self) -> PathBuf {
        self.parent.join(CLIENT_POD)
    }

    fn server(&self) -> PathBuf {
        self.parent.join(SERVER_POD)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in [self.client(), self.server(), self.parent.clone()] {
            // The kernel needs a moment after the last process has ended.
            let removed = wait_for("the cgroup's last process", Duration::from_secs(5), || {
                Ok(fs::remove_dir(&folder)?)
            });
            if let Err(error) = removed {
                step::say(&format!(
                    "the cgroup {} stays behind: {error:#}",
                    folder.display()
                ));
            }
        }
    }
}

/// The namespaces and the link between them.
struct Namespaces;

impl Namespaces {
    fn new() -> Result<Self> {
        remove();
        let namespaces = Self;
        for line in [
            format!("netns add {CLIENT}"),
            format!("netns add {SERVER}"),
            format!("-n {CLIENT} link add eth0 type veth peer name eth0 netns {SERVER}"),
            format!("-n {CLIENT} address add {CLIENT_ADDRESS}/24 dev eth0"),
            format!("-n {SERVER} address add {SERVER_ADDRESS}/24 dev eth0"),
            format!("-n {CLIENT} link set eth0 up"),
            format!("-n {SERVER} link set eth0 up"),
        ] {
            step::output(Command::new("ip").args(line.split_whitespace()))?;
        }
        Ok(namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for name in [CLIENT, SERVER] {
        if Path::new("/run/netns").join(name).exists()
            && let Err(error) = step::output(Command::new("ip").args(["netns", "delete", name]))
        {
            step::say(&format!("network namespace {name} stays behind: {error:#}"));
        }
    }
}
