//! What is installed is accepted by a real API server, without a word.

use crate::cluster::{Cluster, kubectl, repository};

fn accepted(arguments: &[&str]) {
    let output = kubectl(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert!(
        !errors.to_lowercase().contains("warning"),
        "{arguments:?}: {errors}"
    );
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn crds_and_samples_are_accepted_without_warnings() {
    let cluster = Cluster::new("installed").await;
    accepted(&["apply", "--server-side", "-k", &repository("config/crds")]);
    let crd = "crd/servicedependencies.leyline.dev";
    accepted(&["wait", "--for=condition=Established", "--timeout=60s", crd]);
    accepted(&["explain", "servicedependencies.status.conditions"]);
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
            accepted(&["create", "--dry-run=server", "-f", file.to_str().expect("a path")]);
            std::fs::remove_file(&file).expect("removed");
            count += 1;
        }
    }
    assert!(count > 0, "config/samples holds no sample");
}
