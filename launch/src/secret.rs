//! Variables that must not stand where others read them.

/// Whether a variable's name says that it is secret: `HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`.
pub(crate) fn is_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let last = upper.rsplit('_').next();
    upper.contains("SECRET") || matches!(last, Some("TOKEN" | "PASSWORD" | "KEY"))
}
