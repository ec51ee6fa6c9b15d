//! What is installed is accepted by a real API server, without a word.

use crate::cluster::{Cluster, kubectl, repository};
use crate::wait::eventually;

/// The API server publishes a new kind's discovery and OpenAPI documents some time after the kind is established, so a
/// refusal is asked again; a warning is none that time would heal.
async fn accepted(arguments: &[&str]) {
    let errors = eventually("accepted by the API server", async || {
        let output = kubectl(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(errors)
        } else {
            Err(format!("{arguments:?}: {errors}"))
        }
    })
    .await;
    assert!(
        !errors.to_lowercase().contains("warning"),
        "{arguments:?}: {errors}"
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn crds_and_samples_are_accepted_without_warnings() {
    let cluster = Cluster::new("installed").await;
    accepted(&["apply", "--server-side", "-k", &repository("config/crds")]).await;
    let crd = "crd/servicedependencies.leyline.dev";
    accepted(&["wait", "--for=condition=Established", "--timeout=60s", crd]).await;
    accepted(&["explain", "servicedependencies.status.conditions"]).await;
    let samples = std::fs::read_dir(repository("config/samples")).expect("config/samples");
    let mut count = 0;
    for sample in samples {
        let path = sample.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let path = path.to_str().expect("a path");
            let text = std::fs::read_to_string(path).expect("readable");
            // Into the test's namespace: the sample's own need not exist here.
            let file = std::env::temp_dir().join(format!("{}-{count}.yaml", cluster.namespace));
            let moved: String = text
                .lines()
                .map(|line| match line.strip_prefix("  namespace:") {
                    Some(_) => format!("  namespace: {}\n", cluster.namespace),
                    None => format!("{line}\n"),
                })
                .collect();
            std::fs::write(&file, moved).expect("written");
            accepted(&["create", "--dry-run=server", "-f", file.to_str().expect("a path")]).await;
            std::fs::remove_file(&file).expect("removed");
            count += 1;
        }
    }
    assert!(count > 0, "config/samples holds no sample");
}
