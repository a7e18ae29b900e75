//! The connected Envoys, and what each acknowledged or rejected.
