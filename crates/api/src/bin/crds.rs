//! Writes `crds/*.yaml`; with `--check` it only compares and says what to run.
//!
//! Run it from anywhere inside the checkout: `cargo run -q -p leyline-api --bin crds [--check]`.

use std::{env, error::Error, fs, path::Path, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = env::args().skip(1).any(|argument| argument == "--check");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let mut differs = false;
    for (name, content) in leyline_api::crd::files()? {
        let path = folder.join(&name);
        if fs::read_to_string(&path).is_ok_and(|old| old == content) {
            continue;
        }
        if check {
            eprintln!("crds/{name} is not what crates/api generates: run `make crds`");
            differs = true;
        } else {
            fs::create_dir_all(&folder)?;
            fs::write(&path, content)?;
            println!("wrote crds/{name}");
        }
    }
    Ok(if differs {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
