//! The bucket that a store lies in: made ready, put to the proof, shared by links.
//!
//! A handful of requests, signed and sent by the client that reads and writes objects: what it
//! may do here is what it may do there.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::signer::Signer;
use object_store::{ClientOptions, Error as Cause, ObjectStore, ObjectStoreExt};
use object_store::{PutMode, UpdateVersion};
use serde::Serialize;

use super::failure::s3_code;
use super::transfer::PART;
use super::{Key, ObjectEntry, Store};
use crate::id::{ArtifactId, digest};
use crate::{Error, Result, entropy};

/// An S3 server's own side of a store.
#[derive(Clone)]
pub(super) struct Amazon {
    pub server: Arc<AmazonS3>,
    pub bucket: String,
    pub region: String,
    /// Where it answers, when it is not Amazon's.
    pub endpoint: Option<String>,
    pub allow_http: bool,
}

/// One thing that was set or proven, or why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    pub what: &'static str,
    pub fine: bool,
    pub said: String,
}

/// Unfinished uploads and records of dead runs go after a week, deleted versions after a month.
const LIFECYCLE: &str = "<LifecycleConfiguration>\
    <Rule><ID>triad-uploads</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
    <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
    </AbortIncompleteMultipartUpload></Rule>\
    <Rule><ID>triad-deleted</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>\
    <NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays>\
    </NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
const VERSIONING: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const ENCRYPTION: &str = "<ServerSideEncryptionConfiguration><Rule>\
    <ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>\
    </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
const PRIVATE: &str = "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls>\
    <IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy>\
    <RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>";

impl Amazon {
    /// Sends `body` to the bucket's `?query`; gives the answer's status and text.
    async fn put(&self, query: &str, body: &str) -> Result<(u16, String)> {
        let base = match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_string(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let url = match query {
            "" => format!("{base}/{}", self.bucket),
            _ => format!("{base}/{}?{query}=", self.bucket),
        };
        let options = ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_timeout(Duration::from_secs(30))
            .with_connect_timeout(Duration::from_secs(3));
        let client: HttpClient =
            ReqwestConnector::default().connect(&options).map_err(Error::defect)?;
        let credential = self.server.credentials().get_credential().await.map_err(|e| {
            Error::usage(format!("no credentials for bucket `{}`: {e}", self.bucket))
        })?;
        let sha256 = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(&url)
            .header("content-length", body.len())
            .header("x-amz-checksum-sha256", BASE64_STANDARD.encode(sha256))
            .body(Bytes::copy_from_slice(body.as_bytes()).into())
            .map_err(Error::defect)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let unreachable = |e: &dyn std::fmt::Display| {
            Error::try_again(format!("{base}: not reachable: {e}; check AWS_ENDPOINT_URL"))
        };
        let answer = client.execute(request).await.map_err(|e| unreachable(&e))?;
        let status = answer.status().as_u16();
        let text = answer.into_body().bytes().await.map_err(|e| unreachable(&e))?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}

impl Store {
    fn amazon(&self) -> Result<&Amazon> {
        self.amazon.as_ref().ok_or_else(|| {
            Error::usage(format!("store `{}` has no bucket; give --store s3://BUCKET", self.url()))
        })
    }

    /// Creates the bucket unless it is there, and sets what a store should have: versions of what
    /// is deleted, their expiry and that of unfinished uploads, encryption, no public access.
    ///
    /// A server that does not know one of them says so; it is no error.
    pub async fn init_bucket(&self) -> Result<Vec<Proof>> {
        let amazon = self.amazon()?;
        let location = match amazon.region.as_str() {
            "us-east-1" => String::new(),
            region => format!(
                "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint>\
                 </CreateBucketConfiguration>"
            ),
        };
        let mut proofs = Vec::new();
        for (what, query, body, permission) in [
            ("bucket", "", location.as_str(), "s3:CreateBucket"),
            ("versioning", "versioning", VERSIONING, "s3:PutBucketVersioning"),
            ("lifecycle", "lifecycle", LIFECYCLE, "s3:PutLifecycleConfiguration"),
            ("encryption", "encryption", ENCRYPTION, "s3:PutEncryptionConfiguration"),
            ("no public access", "publicAccessBlock", PRIVATE, "s3:PutBucketPublicAccessBlock"),
        ] {
            let (status, text) = amazon.put(query, body).await?;
            let code = s3_code(&text).unwrap_or_default();
            let (fine, said) = match (status, code) {
                (200..300, _) => (true, "set".to_string()),
                (_, "BucketAlreadyOwnedByYou") => (true, "there already".into()),
                (_, "BucketAlreadyExists") if amazon.endpoint.is_some() => {
                    (true, "there already".into())
                }
                (501, _) | (_, "NotImplemented") => (true, "unknown to this server".into()),
                (403, _) => (false, format!("access denied: {permission} is missing")),
                (_, "") => (false, format!("status {status}")),
                (_, code) => (false, code.into()),
            };
            proofs.push(Proof { what, fine, said });
            if query.is_empty() && !fine {
                break;
            }
        }
        Ok(proofs)
    }

    /// Proves by live calls that the store does what triad needs, and names the permission that
    /// is missing where it does not. What it writes it deletes.
    pub async fn check_bucket(&self) -> Vec<Proof> {
        let name = entropy::attempt_name();
        let id = ArtifactId::of(&serde_json::json!({"job": "bucket check", "params": name}));
        let key =
            |path: &str| Key::Data { id: id.clone(), attempt: name.clone(), path: path.into() };
        let mut proofs = vec![self.prove_write(&key("probe")).await];
        if proofs[0].fine {
            proofs.push(self.prove_read(&key("probe")).await);
            proofs.push(self.prove_list(&id).await);
            proofs.push(self.prove_create(&key("created")).await);
            proofs.push(self.prove_swap(&key("swapped")).await);
            proofs.push(self.prove_parts(&id, &name).await);
            proofs.push(self.prove_clock(&key("probe")).await);
            let deleted = self.purge(&id).await;
            proofs.push(proof("delete", "s3:DeleteObject", deleted.map(|()| "gone".into())));
        }
        proofs
    }

    async fn prove_write(&self, key: &Key) -> Proof {
        let put = self.put(key, Bytes::from_static(b"0123456789")).await;
        proof("write", "s3:PutObject", put.map(|()| "10 bytes".into()))
    }

    async fn prove_read(&self, key: &Key) -> Proof {
        let read = async {
            let path = self.path(key);
            let whole = self.get(key).await?;
            let part = self.client.get_range(&path, 2..5).await;
            let part = part.map_err(|e| self.failure(key, &e))?;
            if whole.as_deref() != Some(&b"0123456789"[..]) || part != "234" {
                return Err(Error::data("it is not what was written"));
            }
            Ok::<_, Error>("whole, and a range of it, at once after the write".into())
        };
        proof("read", "s3:GetObject", read.await)
    }

    async fn prove_list(&self, id: &ArtifactId) -> Proof {
        let listed = self.list(&Key::artifact_folder(id)).await;
        let seen = listed.and_then(|found| match found.len() {
            1 => Ok("shows what was written".into()),
            n => Err(Error::data(format!("shows {n} objects of 1"))),
        });
        proof("list", "s3:ListBucket", seen)
    }

    async fn prove_create(&self, key: &Key) -> Proof {
        const RACERS: usize = 8;
        let path = self.path(key);
        let puts = (0..RACERS).map(|i| {
            let bytes = Bytes::from(format!("racer {i}"));
            let (client, path) = (&self.client, &path);
            async move { client.put_opts(path, bytes.into(), PutMode::Create.into()).await }
        });
        let mut won = 0;
        for put in join_all(puts).await {
            match put {
                Ok(_) => won += 1,
                Err(Cause::AlreadyExists { .. }) => {}
                Err(e) => {
                    let why = Err(self.failure(key, &e));
                    return proof("create-only put", "s3:PutObject", why);
                }
            }
        }
        let right = match won {
            1 => Ok(format!("1 of {RACERS} racing writers won")),
            n => {
                Err(Error::data(format!("{n} of {RACERS} racing writers won; commits are unsafe")))
            }
        };
        proof("create-only put", "s3:PutObject", right)
    }

    async fn prove_swap(&self, key: &Key) -> Proof {
        let path = self.path(key);
        let swap = async {
            let put = self.client.put(&path, "first".into()).await?;
            let version = UpdateVersion { e_tag: put.e_tag, version: put.version };
            let update = |text: &'static str| {
                let mode = PutMode::Update(version.clone());
                self.client.put_opts(&path, text.into(), mode.into())
            };
            update("second").await?;
            Ok::<_, Cause>(matches!(update("third").await, Err(Cause::Precondition { .. })))
        };
        let right: Result<String> = match swap.await {
            Ok(true) => Ok("a stale version replaces nothing".into()),
            Ok(false) => Err(Error::data("a stale version replaced a newer one")),
            Err(Cause::NotImplemented { .. }) => {
                Ok("unknown here: the last name written wins".into())
            }
            Err(e) => Err(self.failure(key, &e)),
        };
        proof("compare-and-swap", "s3:PutObject", right)
    }

    async fn prove_parts(&self, id: &ArtifactId, attempt: &str) -> Proof {
        let bytes = Bytes::from(vec![7; PART as usize + 1]);
        let entry = ObjectEntry {
            path: "large".into(),
            attempt: attempt.into(),
            size: bytes.len() as u64,
            digest: digest(&bytes),
            rows: None,
        };
        let moved = async {
            self.put(&entry.key(id), bytes.clone()).await?;
            self.read_entry(id, &entry).await?;
            Ok::<_, Error>(format!("{} bytes in parts, both ways", entry.size))
        };
        proof("multipart", "s3:PutObject and s3:AbortMultipartUpload", moved.await)
    }

    async fn prove_clock(&self, key: &Key) -> Proof {
        let head = self.client.head(&self.path(key)).await.map_err(|e| self.failure(key, &e));
        let near = head.and_then(|meta| {
            let apart = (entropy::now() - meta.last_modified).num_seconds();
            match apart.abs() {
                0..60 => Ok(format!("{apart} s apart")),
                _ => Err(Error::data(format!(
                    "this machine's clock is {apart} s from the store's; requests are refused \
                     from 900 s on"
                ))),
            }
        });
        proof("clock", "s3:GetObject", near)
    }

    /// A link by which anybody may read the object of `entry` until it expires.
    pub async fn share(
        &self,
        id: &ArtifactId,
        entry: &ObjectEntry,
        expires: Duration,
    ) -> Result<String> {
        let key = entry.key(id);
        let signed = self.amazon()?.server.signed_url(Method::GET, &self.path(&key), expires).await;
        signed.map(|url| url.to_string()).map_err(|e| self.failure(&key, &e))
    }
}

fn proof(what: &'static str, permission: &str, result: Result<String>) -> Proof {
    let (fine, said) = match result {
        Ok(said) => (true, said),
        Err(e) if e.to_string().contains("access denied") => {
            (false, format!("{e}; it takes {permission}"))
        }
        Err(e) => (false, e.to_string()),
    };
    Proof { what, fine, said }
}
