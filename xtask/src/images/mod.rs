//! Container images without Docker and without a registry.
//!
//! Inputs: the workspace (Leyline's own programs, built static) and Debian packages (the sample application). Outputs:
//! `docker save` archives in `target/images/`, which containerd imports. An image whose inputs did not change keeps its
//! archive, so that a second run does nothing. Deliberately absent: pushing anywhere.

pub(crate) mod archive;
mod debian;
pub(crate) mod program;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace;

/// The images this workspace makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Image {
    /// The operator: one static program.
    Operator,
    /// The node agent: one static program with the eBPF object inside.
    NodeAgent,
    /// Clients and servers of the end-to-end tests: one static program.
    Traffic,
    /// The sample application's servers, from Debian packages.
    Shop,
}

impl Image {
    /// What `make demo` runs.
    pub(crate) const DEMO: [Self; 3] = [Self::Operator, Self::NodeAgent, Self::Shop];
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Operator, Self::NodeAgent, Self::Traffic, Self::Shop];

    /// The name pods use.
    pub(crate) fn reference(self) -> String {
        format!("leyline.dev/{}:dev", self.file_stem())
    }

    fn file_stem(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::NodeAgent => "node-agent",
            Self::Traffic => "traffic",
            Self::Shop => "shop",
        }
    }

    /// Package and program, for images that hold one program of this workspace.
    fn program(self) -> Option<program::Program> {
        match self {
            Self::Operator => Some(program::Program {
                package: "leyline-operator",
                name: "leyline-operator",
                feature: None,
            }),
            Self::NodeAgent => Some(program::Program {
                package: "leyline-node-agent",
                name: "leyline-node-agent",
                feature: None,
            }),
            Self::Traffic => Some(program::Program {
                package: "leyline-e2e",
                name: "leyline-e2e-traffic",
                feature: None,
            }),
            Self::Shop => None,
        }
    }
}

/// What a pod's `imageID` says when it runs the image as it was last built.
pub(crate) fn identity(image: Image) -> Result<String> {
    archive::identity(&path(image)?)
}

/// Where the compiled program of an image is.
pub(crate) fn program_path(image: Image) -> Result<PathBuf> {
    let program = image
        .program()
        .context("an image of Debian packages has no program")?;
    Ok(program.path())
}

/// Builds several images, their programs in one go, and gives their archives in the same order.
pub(crate) fn build_all(images: &[Image]) -> Result<Vec<PathBuf>> {
    let programs: Vec<program::Program> = images.iter().filter_map(|image| image.program()).collect();
    program::compile(&programs)?;
    images.iter().map(|image| one(*image)).collect()
}

fn one(image: Image) -> Result<PathBuf> {
    let path = path(image)?;
    match image.program() {
        Some(program) => program::package(&program, &image.reference(), &path)?,
        None => debian::ensure(&image.reference(), &path)?,
    }
    Ok(path)
}

/// Where the archive of an image is.
fn path(image: Image) -> Result<PathBuf> {
    if image.program().is_none() {
        return debian::path(&image.reference());
    }
    let folder = workspace::target_folder().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder.join(format!("{}.tar", image.file_stem())))
}
