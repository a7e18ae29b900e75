//! What no control plane can be faster than: the same watch and the same xDS server, and resources that were made before.
//!
//! The first time that an EndpointSlice takes a form, what Envoy is told is made by the compiler and kept; from then on
//! that form is answered by sending what was kept. Nothing is resolved, lowered, encoded or hashed on the way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use chancery::compile::Compiler;
use chancery::settings::Settings;
use chancery::source::kubernetes;
use chancery::store::{Change, Object};
use chancery::values::ObjectKey;
use chancery::xds::{self, Resource, Snapshot, TypeUrl, Update};
use tokio::sync::mpsc;

use super::bare::{self, Listen};

/// Serves until killed.
pub(crate) fn serve(kubeconfig: PathBuf, listen: &Listen) -> anyhow::Result<()> {
    let source = |sender| async move {
        let client = kubernetes::connect(Some(&kubeconfig)).await?;
        kubernetes::follow(client, Vec::new(), Settings::default().config_map, sender).await;
        Ok(())
    };
    bare::serve(listen, source, push)
}

async fn push(
    mut compiler: Compiler,
    mut batches: mpsc::Receiver<Vec<Change>>,
    snapshots: xds::snapshot::Sender,
) -> anyhow::Result<()> {
    let mut made = Made::default();
    while let Some(changes) = batches.recv().await {
        // Those that come at once have a form each.
        let one_by_one =
            if made.ready { changes.into_iter().map(|it| vec![it]).collect() } else { vec![changes] };
        for changes in one_by_one {
            made.take(&mut compiler, changes)?;
        }
        if made.ready {
            snapshots.send_replace(Some(Arc::new(made.pushed.clone())));
        }
    }
    Ok(())
}

/// An EndpointSlice, and the port that tells its forms apart.
type Form = (ObjectKey, Option<i32>);

/// The form that a change brings, if it is that of one EndpointSlice.
fn form(changes: &[Change]) -> Option<Form> {
    let [Change::Applied(applied)] = changes else { return None };
    let Object::EndpointSlice(slice) = &applied.object else { return None };
    Some((applied.key.clone(), slice.ports.as_ref()?.first()?.port))
}

#[derive(Default)]
struct Made {
    /// Whether all there is was seen.
    ready: bool,
    /// The compiler's snapshot that was followed last.
    seen: Arc<Snapshot>,
    pushed: Snapshot,
    kept: HashMap<Form, Arc<Resource>>,
}

impl Made {
    fn take(&mut self, compiler: &mut Compiler, changes: Vec<Change>) -> anyhow::Result<()> {
        let form = form(&changes);
        if let Some(resource) = form.as_ref().and_then(|form| self.kept.get(form)) {
            let update = Update { set: vec![resource.clone()], remove: Vec::new() };
            self.pushed = self.pushed.apply(update);
            return Ok(());
        }
        let published = compiler.apply(changes);
        self.ready = published.ready;
        if !self.ready {
            return Ok(());
        }
        let snapshot = published.snapshot.clone();
        self.follow(&snapshot, form)
    }

    fn follow(&mut self, snapshot: &Arc<Snapshot>, form: Option<Form>) -> anyhow::Result<()> {
        if self.pushed.is_empty() {
            self.seen = snapshot.clone();
            self.pushed = Snapshot::clone(snapshot);
            return Ok(());
        }
        let changes = snapshot.changes_since(self.seen.sequence()).context("too many changes at once")?;
        let mut update = Update::default();
        for (_, type_url, name) in changes {
            match snapshot.get(type_url, name) {
                Some(resource) => update.set.push(resource.clone()),
                None => update.remove.push((type_url, name.clone())),
            }
        }
        if let (Some(form), [one]) = (form, &update.set[..])
            && one.type_url() == TypeUrl::ClusterLoadAssignment
        {
            self.kept.insert(form, one.clone());
        }
        self.seen = snapshot.clone();
        self.pushed = self.pushed.apply(update);
        Ok(())
    }
}
