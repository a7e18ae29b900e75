//! Changing the number of echo servers as a rollout does.

use super::world::World;
use crate::case::values::BackendKey;
use crate::manifest::ObjectRef;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// For how long a terminating endpoint goes on serving before it is withdrawn.
const GRACE: Duration = Duration::from_secs(2);

/// Up: listen, then publish. Down: publish as terminating, serve on, withdraw, finish what is in flight, close.
pub(super) async fn scale(world: &mut World, counts: &BTreeMap<BackendKey, u32>) -> Result<()> {
    let mut shrinking = Vec::new();
    for (key, count) in counts {
        let is_meant = |own: &BackendKey| own.service == key.service && own.port == key.port;
        let place = world.backends.iter().position(|replicas| is_meant(&replicas.key));
        let place = place.with_context(|| format!("{key} is no backend of the case"))?;
        let (replicas, count) = (&mut world.backends[place], *count as usize);
        while replicas.count() < count {
            replicas.add().await?;
        }
        if replicas.count() > count {
            replicas.terminate_down_to(count);
            shrinking.push(place);
        }
        publish(world, place).await?;
    }
    if shrinking.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(GRACE).await;
    for place in shrinking {
        let (gone, pods) = world.backends[place].withdraw();
        publish(world, place).await?;
        for pod in pods {
            let pod = ObjectRef { kind: pod.kind, namespace: pod.namespace, name: pod.name };
            world.cluster.delete(&pod).await?;
        }
        gone.into_iter().for_each(|replica| replica.finish());
    }
    Ok(())
}

async fn publish(world: &mut World, place: usize) -> Result<()> {
    let objects = world.backends[place].objects();
    world.cluster.apply(&objects).await
}
