//! `artifact('id')`: any committed version as a table.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::catalog::{main_dataset, table_of};
use crate::Error;
use crate::nearest::hint;
use crate::store::{Artifact, Store};

/// The artifacts that a query asks for, by what it calls them: opened before it is planned, since
/// planning cannot wait.
pub(super) struct Versions(BTreeMap<String, Artifact>);

impl Versions {
    /// # Errors
    /// Those of [`Store::find`].
    pub async fn find(store: &Store, sql: &str) -> crate::Result<Self> {
        let mut found = BTreeMap::new();
        for name in asked(sql) {
            let artifact = store.find(&name).await.map_err(|e| e.at(format!("artifact('{name}')")));
            found.insert(name, artifact?);
        }
        Ok(Self(found))
    }

    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.0.values()
    }

    /// What SQL calls.
    pub async fn function(&self) -> crate::Result<Arc<dyn TableFunctionImpl>> {
        let mut versions = BTreeMap::new();
        for (name, artifact) in &self.0 {
            let mut tables = BTreeMap::new();
            for (dataset, schema) in &artifact.manifest.datasets {
                tables.insert(dataset.clone(), table_of(artifact, dataset, schema).await?);
            }
            let main = main_dataset(&artifact.manifest).map(String::from);
            versions.insert(name.clone(), Version { main, tables });
        }
        Ok(Arc::new(Function(versions)))
    }
}

/// The texts that stand first in `artifact('…'` of a query.
fn asked(sql: &str) -> Vec<String> {
    // What is no SQL is refused when it is planned.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let tokens: Vec<_> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let names = tokens.windows(3).filter_map(|three| match three {
        [Token::Word(word), Token::LParen, Token::SingleQuotedString(name)]
            if word.value == "artifact" =>
        {
            Some(name.clone())
        }
        _ => None,
    });
    names.collect()
}

#[derive(Debug)]
struct Version {
    main: Option<String>,
    tables: BTreeMap<String, Arc<dyn TableProvider>>,
}

#[derive(Debug)]
struct Function(BTreeMap<String, Version>);

impl TableFunctionImpl for Function {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let text = |expr: &Expr| match expr {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(String::from),
            _ => None,
        };
        let texts: Option<Vec<String>> = args.exprs().iter().map(text).collect();
        let (name, dataset) = match texts.as_deref() {
            Some([name]) => (name, None),
            Some([name, dataset]) => (name, Some(dataset)),
            _ => return plan_err!("artifact takes ('name or id') or ('name or id', 'dataset')"),
        };
        let Some(version) = self.0.get(name) else {
            return plan_err!("artifact('{name}'): write the name as one text in single quotes");
        };
        let wanted = dataset.or(version.main.as_ref());
        if let Some(table) = wanted.and_then(|dataset| version.tables.get(dataset)) {
            return Ok(table.clone());
        }
        let known = version.tables.keys().map(String::as_str);
        let said = match dataset {
            Some(dataset) => format!("no dataset `{dataset}`{}", hint(dataset, known)),
            None if version.tables.is_empty() => "it holds no dataset".into(),
            None => format!("say which dataset: {}", known.collect::<Vec<_>>().join(", ")),
        };
        let error = Error::usage(said).at(format!("artifact('{name}')"));
        Err(DataFusionError::External(Box::new(error)))
    }
}
