//! Flight SQL's requests as queries.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandGetCatalogs, CommandGetDbSchemas,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::listing;
use crate::query::{Catalog, Rows, Session};
use crate::store::Store;
use crate::{Error, Result};

/// How long names are taken for those of the store.
const FRESH: Duration = Duration::from_secs(1);

pub struct Tables {
    store: Store,
    /// The catalog that was read last, and when.
    catalog: Mutex<Option<(Instant, Arc<Catalog>)>>,
}

type Data<S> = Response<<S as FlightService>::DoGetStream>;

impl Tables {
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), catalog: Mutex::default() }
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        let mut last = self.catalog.lock().await;
        if let Some((read, catalog)) = &*last
            && read.elapsed() < FRESH
        {
            return Ok(catalog.clone());
        }
        let catalog = Arc::new(Catalog::open(&self.store).await?);
        *last = Some((Instant::now(), catalog.clone()));
        Ok(catalog)
    }

    /// One for each statement: what one of them names is nothing to the others.
    async fn session(&self) -> Result<Session> {
        Session::without_files(&self.store, self.catalog().await?).await
    }

    async fn rows(&self, sql: &str) -> Result<Rows> {
        self.session().await?.read(sql).await
    }

    async fn schema(&self, sql: &str) -> Result<SchemaRef> {
        self.session().await?.describe(sql).await
    }

    /// What a statement gives, and the ticket for its rows.
    async fn statement(&self, sql: &str, asked: FlightDescriptor) -> Result<FlightInfo> {
        let schema = self.schema(sql).await?;
        let ticket = TicketStatementQuery { statement_handle: sql.to_owned().into() };
        info(&schema, &ticket, asked)
    }
}

/// The answer to whoever asks for something of which `ticket` gets the rows.
fn info(
    schema: &SchemaRef,
    ticket: &impl ProstMessageExt,
    asked: FlightDescriptor,
) -> Result<FlightInfo> {
    let ticket = Ticket { ticket: ticket.as_any().encode_to_vec().into() };
    let info = FlightInfo::new().try_with_schema(schema).map_err(Error::defect)?;
    Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(asked))
}

/// One batch as the whole answer.
fn all<S: FlightService<DoGetStream = Flights>>(batch: RecordBatch) -> Data<S> {
    let schema = batch.schema();
    encoded(schema, stream::iter([Ok(batch)]))
}

type Flights =
    Pin<Box<dyn Stream<Item = Result<arrow_flight::FlightData, Status>> + Send + 'static>>;

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> Response<Flights> {
    let batches = batches.map_err(|status| FlightError::Tonic(Box::new(status)));
    let encoder = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(encoder.map_err(Status::from).boxed())
}

/// The rows as they come; who hangs up ends the query.
fn streamed(rows: Rows) -> Response<Flights> {
    let schema = rows.schema();
    let batches = stream::try_unfold(rows, |mut rows| async move {
        Ok(rows.next().await.map_err(status)?.map(|batch| (batch, rows)))
    });
    encoded(schema, batches)
}

fn status(error: Error) -> Status {
    let said = error.to_string();
    match error {
        Error::Usage(_) => Status::invalid_argument(said),
        Error::Data(_) => Status::data_loss(said),
        Error::TryAgain(_) => Status::unavailable(said),
        Error::Defect(_) => Status::internal(said),
    }
}

fn text(handle: &Bytes) -> Result<&str, Status> {
    std::str::from_utf8(handle).map_err(|_| Status::invalid_argument("this is no handle of ours"))
}

#[tonic::async_trait]
impl FlightSqlService for Tables {
    type FlightService = Self;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let info = self.statement(&query.query, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(info))
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        Ok(streamed(self.rows(text(&ticket.statement_handle)?).await.map_err(status)?))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let schema = self.schema(&query.query).await.map_err(status)?;
        let IpcMessage(dataset_schema) = SchemaAsIpc::new(&schema, &IpcWriteOptions::default())
            .try_into()
            .map_err(|e| status(Error::defect(e)))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into(),
            dataset_schema,
            parameter_schema: Bytes::new(),
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        _query: CommandPreparedStatementQuery,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        Err(Status::unimplemented("statements take no parameters: write the values into the SQL"))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let sql = text(&query.prepared_statement_handle)?;
        let info = self.statement(sql, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(info))
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        Ok(streamed(self.rows(text(&query.prepared_statement_handle)?).await.map_err(status)?))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.into_builder().schema();
        info(&schema, &query, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        let catalog = self.catalog().await.map_err(status)?;
        Ok(all::<Self>(listing::catalogs(&catalog, query).map_err(status)?))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        info(&schema, &query, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        let catalog = self.catalog().await.map_err(status)?;
        Ok(all::<Self>(listing::schemas(&catalog, query).map_err(status)?))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = query.clone().into_builder().schema();
        info(&schema, &query, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        let catalog = self.catalog().await.map_err(status)?;
        Ok(all::<Self>(listing::tables(&catalog, query).await.map_err(status)?))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = listing::table_types().map_err(status)?.schema();
        info(&schema, &query, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn do_get_table_types(
        &self,
        _query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        Ok(all::<Self>(listing::table_types().map_err(status)?))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = listing::about(query.clone()).map_err(status)?.schema();
        info(&schema, &query, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<Data<Self>, Status> {
        Ok(all::<Self>(listing::about(query).map_err(status)?))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
