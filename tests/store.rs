//! The store contract, the same for every kind of store.
