//! `artifact('id')`: any committed version as a table. `parts('id')`: the same with the number of
//! each row's part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Union};
use datafusion::prelude::{ident, lit};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::catalog::{main_table, tables_of};
use crate::Error;
use crate::nearest::hint;
use crate::store::{Artifact, Manifest, Store};

/// The artifacts that a query asks for, by what it calls them: opened before it is planned, since
/// planning cannot wait.
#[derive(Default)]
pub(super) struct Versions {
    artifacts: BTreeMap<String, Artifact>,
    /// Those that `parts` is asked for.
    parted: BTreeSet<String>,
}

impl Versions {
    /// # Errors
    /// Those of [`Store::find`].
    pub async fn find(store: &Store, sql: &str) -> crate::Result<Self> {
        let mut found = Self::default();
        for (function, name) in asked(sql) {
            let artifact = store.find(&name).await;
            let artifact = artifact.map_err(|e| e.at(format!("{function}('{name}')")))?;
            if function == "parts" {
                found.parted.insert(name.clone());
            }
            found.artifacts.insert(name, artifact);
        }
        Ok(found)
    }

    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.artifacts.values()
    }

    /// What SQL calls, by name.
    pub async fn functions(
        &self,
    ) -> crate::Result<[(&'static str, Arc<dyn TableFunctionImpl>); 2]> {
        let (mut whole, mut parted) = (BTreeMap::new(), BTreeMap::new());
        for (name, artifact) in &self.artifacts {
            let main = main_table(&artifact.manifest).map(String::from);
            let tables = tables_of(artifact).await?;
            whole.insert(name.clone(), Version { main: main.clone(), tables });
            if self.parted.contains(name) {
                let tables = parted_tables(artifact).await?;
                parted.insert(name.clone(), Version { main, tables });
            }
        }
        let function = |name, versions| (name, Arc::new(Function { name, versions }) as _);
        Ok([function("artifact", whole), function("parts", parted)])
    }
}

/// The datasets of an artifact, each row with the number of the part that it lies in.
async fn parted_tables(artifact: &Artifact) -> crate::Result<Tables> {
    let mut found: BTreeMap<String, Vec<(u64, Arc<dyn TableProvider>)>> = BTreeMap::new();
    let Manifest { objects, .. } = &artifact.manifest;
    let bare = Manifest { objects: Vec::new(), ..artifact.manifest.clone() };
    for entry in objects {
        let Some((dataset, rest)) = entry.path.split_once('/') else { continue };
        let number = rest.trim_end_matches(".parquet").parse();
        let (true, Ok(part)) = (bare.datasets.contains_key(dataset), number) else { continue };
        let manifest = Manifest { objects: vec![entry.clone()], ..bare.clone() };
        let one = Artifact { store: artifact.store.clone(), manifest };
        let table = tables_of(&one).await?.remove(dataset);
        found.entry(dataset.into()).or_default().extend(table.map(|table| (part, table)));
    }
    let table = |(dataset, parts)| Ok((dataset, numbered(parts).map_err(Error::defect)?));
    found.into_iter().map(table).collect()
}

/// The rows of all `parts`, with a first column `part`.
fn numbered(parts: Vec<(u64, Arc<dyn TableProvider>)>) -> Result<Arc<dyn TableProvider>> {
    let mut plans = Vec::new();
    for (part, table) in parts {
        let columns = table.schema();
        let columns = columns.fields().iter().map(|field| ident(field.name()));
        let columns: Vec<Expr> = [lit(part).alias("part")].into_iter().chain(columns).collect();
        let scan = LogicalPlanBuilder::scan("part", provider_as_source(table), None)?;
        plans.push(Arc::new(scan.project(columns)?.build()?));
    }
    let all = match &plans[..] {
        [one] => one.as_ref().clone(),
        _ => LogicalPlan::Union(Union::try_new_with_loose_types(plans)?),
    };
    Ok(Arc::new(ViewTable::new(all, None)))
}

type Tables = BTreeMap<String, Arc<dyn TableProvider>>;

/// The texts that stand first in `artifact('…'` and `parts('…'` of a query.
fn asked(sql: &str) -> Vec<(String, String)> {
    // What is no SQL is refused when it is planned.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let tokens: Vec<_> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let names = tokens.windows(3).filter_map(|three| match three {
        [Token::Word(word), Token::LParen, Token::SingleQuotedString(name)]
            if matches!(&*word.value, "artifact" | "parts") =>
        {
            Some((word.value.clone(), name.clone()))
        }
        _ => None,
    });
    names.collect()
}

#[derive(Debug)]
struct Version {
    main: Option<String>,
    tables: Tables,
}

#[derive(Debug)]
struct Function {
    name: &'static str,
    versions: BTreeMap<String, Version>,
}

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
            _ => {
                let function = self.name;
                return plan_err!("{function} takes ('name or id') or ('name or id', 'dataset')");
            }
        };
        let place = format!("{}('{name}')", self.name);
        let Some(version) = self.versions.get(name) else {
            return plan_err!("{place}: write the name as one text in single quotes");
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
        let error = Error::usage(said).at(place);
        Err(DataFusionError::External(Box::new(error)))
    }
}
