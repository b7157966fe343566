//! The bucket that a store lies in: made ready, put to the proof, shared by links.
//!
//! What is set and shared goes through Amazon's SDK; what is proven, through the client that reads
//! and writes objects, or it would not hold for jobs.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration, PublicAccessBlockConfiguration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule, VersioningConfiguration,
};
use bytes::Bytes;
use futures::future::join_all;
use object_store::aws::AmazonS3;
use object_store::{Error as Cause, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use serde::Serialize;

use super::credentials::http_client;
use super::failure::innermost;
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
}

/// One thing that was set or proven, or why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    pub what: &'static str,
    pub fine: bool,
    pub said: String,
}

/// A request of the control plane is given up after that long, all tries together.
const LIMIT: Duration = Duration::from_secs(15);

impl Store {
    fn amazon(&self) -> Result<&Amazon> {
        self.amazon.as_ref().ok_or_else(|| {
            Error::usage(format!("store `{}` has no bucket; give --store s3://BUCKET", self.url()))
        })
    }

    /// Amazon's own client, with the credentials of the one that reads and writes objects.
    async fn control(&self) -> Result<aws_sdk_s3::Client> {
        let amazon = self.amazon()?;
        let keys = amazon.server.credentials().get_credential().await;
        let keys = keys.map_err(|e| self.failure(&"", &e))?;
        let keys =
            Credentials::new(&keys.key_id, &keys.secret_key, keys.token.clone(), None, "triad");
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client())
            .retry_config(RetryConfig::standard())
            .timeout_config(TimeoutConfig::builder().operation_timeout(LIMIT).build())
            .credentials_provider(keys)
            .region(Region::new(amazon.region.clone()))
            .force_path_style(true)
            // A link must ask for nothing but the object.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(amazon.endpoint.clone());
        Ok(aws_sdk_s3::Client::from_conf(config.build()))
    }

    /// Creates the bucket unless it is there, and sets what a store should have: versions of what
    /// is deleted, their expiry and that of unfinished uploads, encryption, no public access.
    ///
    /// A server that does not know one of them says so; it is no error.
    pub async fn init_bucket(&self) -> Result<Vec<Proof>> {
        let Amazon { bucket, region, .. } = self.amazon()?;
        let client = self.control().await?;
        let place = (region != "us-east-1").then(|| {
            let place = BucketLocationConstraint::from(region.as_str());
            CreateBucketConfiguration::builder().location_constraint(place).build()
        });
        let made = client.create_bucket().bucket(bucket).set_create_bucket_configuration(place);
        let mut proofs = vec![self.set("bucket", "s3:CreateBucket", made.send().await)?];
        if !proofs[0].fine {
            return Ok(proofs);
        }

        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
        let versioning = client.put_bucket_versioning().bucket(bucket);
        let sent = versioning.versioning_configuration(enabled.build()).send().await;
        proofs.push(self.set("versioning", "s3:PutBucketVersioning", sent)?);

        let lifecycle = client.put_bucket_lifecycle_configuration().bucket(bucket);
        let sent = lifecycle.lifecycle_configuration(expiry()?).send().await;
        proofs.push(self.set("lifecycle", "s3:PutLifecycleConfiguration", sent)?);

        let by_default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(ServerSideEncryption::Aes256)
            .build()
            .map_err(Error::defect)?;
        let rule = ServerSideEncryptionRule::builder();
        let rule = rule.apply_server_side_encryption_by_default(by_default).build();
        let rules = ServerSideEncryptionConfiguration::builder().rules(rule).build();
        let encryption = client.put_bucket_encryption().bucket(bucket);
        let encryption =
            encryption.server_side_encryption_configuration(rules.map_err(Error::defect)?);
        let sent = encryption.send().await;
        proofs.push(self.set("encryption", "s3:PutEncryptionConfiguration", sent)?);

        let private = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let block = client.put_public_access_block().bucket(bucket);
        let sent = block.public_access_block_configuration(private).send().await;
        proofs.push(self.set("no public access", "s3:PutBucketPublicAccessBlock", sent)?);
        Ok(proofs)
    }

    /// What the server said to a request that sets `what`.
    fn set<T, E: ProvideErrorMetadata>(
        &self,
        what: &'static str,
        permission: &str,
        sent: Result<T, SdkError<E>>,
    ) -> Result<Proof>
    where
        SdkError<E>: std::error::Error,
    {
        let Err(error) = sent else { return Ok(Proof { what, fine: true, said: "set".into() }) };
        let Some(answer) = error.raw_response() else {
            return Err(Error::try_again(format!(
                "{}: not reachable{}: {}; check AWS_ENDPOINT_URL",
                self.url(),
                self.at_endpoint(),
                innermost(&error)
            )));
        };
        let status = answer.status().as_u16();
        let elsewhere = self.amazon()?.endpoint.is_some();
        let (fine, said) = match (status, error.code().unwrap_or_default()) {
            (_, "BucketAlreadyOwnedByYou") => (true, "there already".into()),
            (_, "BucketAlreadyExists") if elsewhere => (true, "there already".into()),
            (501, _) | (_, "NotImplemented") => (true, "unknown to this server".into()),
            (403, _) => (false, format!("access denied: {permission} is missing")),
            (_, "") => (false, format!("status {status}")),
            (_, code) => (false, code.into()),
        };
        Ok(Proof { what, fine, said })
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
            ..Default::default()
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
        let asked = self.control().await?.get_object().bucket(&self.amazon()?.bucket);
        let until = PresigningConfig::expires_in(expires).map_err(Error::usage)?;
        let signed = asked.key(self.path(&entry.key(id)).as_ref()).presigned(until).await;
        Ok(signed.map_err(|e| Error::defect(innermost(&e)))?.uri().into())
    }
}

/// Unfinished uploads go after a week, deleted versions after a month.
fn expiry() -> Result<BucketLifecycleConfiguration> {
    let rule = |name: &str| {
        let all = LifecycleRuleFilter::builder().prefix("").build();
        LifecycleRule::builder().id(name).status(ExpirationStatus::Enabled).filter(all)
    };
    let uploads = AbortIncompleteMultipartUpload::builder().days_after_initiation(7).build();
    let deleted = NoncurrentVersionExpiration::builder().noncurrent_days(30).build();
    let rules = [
        rule("triad-uploads").abort_incomplete_multipart_upload(uploads),
        rule("triad-deleted").noncurrent_version_expiration(deleted),
    ];
    let rules = rules.into_iter().map(|rule| rule.build().map_err(Error::defect));
    let rules = rules.collect::<Result<_>>()?;
    BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(Error::defect)
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
