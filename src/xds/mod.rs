//! The xDS transport: resources, snapshots, subscriptions, sessions. Knows neither Kubernetes nor the model.
