//! What scenarios need from the machine the cluster runs on: processes outside pods, a machine outside the cluster,
//! addresses where nobody is. Everything made here is removed when the value goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};

/// The network namespace of the second node.
pub const NODE_B_NETNS: &str = "leyline-b";
/// The network namespace of the machine outside the cluster.
pub const OUTSIDE_NETNS: &str = "leyline-outside";
/// Its address.
pub const OUTSIDE: &str = "198.51.100.10";
/// An address that swallows everything.
pub const BLACKHOLE: &str = "198.51.100.66";
/// An address to which there is no way.
pub const NO_WAY: &str = "198.51.100.67";
/// The first of 1,024 addresses that the outside machine answers on.
pub const MANY: &str = "198.18.0.1";

const MANY_NETWORK: &str = "198.18.0.0/22";

/// The machine, prepared.
#[derive(Debug)]
pub struct Machine {
    traffic: PathBuf,
    xtask: PathBuf,
    folder: PathBuf,
    cluster: PathBuf,
    processes: Mutex<Vec<Child>>,
}

impl Machine {
    /// Makes the outside machine and the special addresses. `traffic`: the traffic tool, to be run outside pods;
    /// `folder`: where its copies go; `cluster`: the folder of the cluster.
    ///
    /// # Errors
    /// When a command fails; this needs root.
    pub fn prepare(traffic: &Path, xtask: &Path, folder: &Path, cluster: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let machine = Self {
            traffic: traffic.to_owned(),
            xtask: xtask.to_owned(),
            folder: folder.to_owned(),
            cluster: cluster.to_owned(),
            processes: Mutex::default(),
        };
        machine.xtask(&["outside", "up"])?;
        machine.routes("replace")?;
        Ok(machine)
    }

    /// Runs xtask, for what the cluster itself can change.
    ///
    /// # Errors
    /// With what it printed.
    pub fn xtask(&self, args: &[&str]) -> Result<()> {
        run(Command::new(&self.xtask).args(args)).map(drop)
    }

    fn routes(&self, verb: &str) -> Result<()> {
        ip(&["route", verb, "blackhole", &format!("{BLACKHOLE}/32")])?;
        ip(&["route", verb, "unreachable", &format!("{NO_WAY}/32")])?;
        ip(&["route", verb, MANY_NETWORK, "via", OUTSIDE])?;
        ip(&[
            "-n",
            OUTSIDE_NETNS,
            "route",
            verb,
            "local",
            MANY_NETWORK,
            "dev",
            "lo",
        ])
    }

    /// Starts the traffic tool outside pods, as a program called `name`: it is the name by which Leyline knows it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn process(
        &self,
        name: &str,
        netns: Option<&str>,
        who: &str,
        logs: &Path,
        args: &[&str],
    ) -> Result<()> {
        let program = self.folder.join(name);
        if !program.exists() {
            fs::copy(&self.traffic, &program).with_context(|| format!("copy to {}", program.display()))?;
        }
        let mut command = match netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/run/netns/{netns}"))
                    .arg("--")
                    .arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let child = command
            .args(["act", "--who", who, "--instance", name])
            .arg("--logs")
            .arg(logs)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        self.lock().push(child);
        Ok(())
    }

    /// The next pod on a node gets this address, if nobody has it.
    ///
    /// # Errors
    /// When somebody has it still, or the list of addresses cannot be written.
    pub fn next_address(&self, node: &str, address: std::net::Ipv4Addr) -> Result<()> {
        let folder = self.cluster.join(format!("{node}/ipam/leyline-{node}"));
        ensure!(!folder.join(address.to_string()).exists(), "{address} is taken");
        let before = std::net::Ipv4Addr::from_bits(address.to_bits().wrapping_sub(1));
        let path = folder.join("last_reserved_ip.0");
        fs::write(&path, before.to_string()).with_context(|| format!("write {}", path.display()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in self.lock().iter_mut() {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
        if let Err(error) = self.routes("delete") {
            eprintln!("special routes stay: {error:#}");
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

/// Runs a command to its end and gives what it printed.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{command:?}: {} {}",
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
