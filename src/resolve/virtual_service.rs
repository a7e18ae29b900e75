//! VirtualServices of a host to routes.

use super::Group;
use super::draft::Draft;
use crate::crd::virtual_service::VirtualService;
use crate::values::ObjectKey;

/// The routes that one VirtualService makes for the draft's host.
pub(crate) fn routes(_draft: &mut Draft<'_>, _key: &ObjectKey, _service: &VirtualService) -> Group {
    Group::default()
}
