//! Objects by key, a few indexes, and the recording view through which pure code reads them.
