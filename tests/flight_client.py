"""flight_client.py URI TOKEN SQL…: a line of JSON for each statement, its rows or the error."""

import json
import sys

import adbc_driver_flightsql.dbapi as flight

uri, token, *statements = sys.argv[1:]
options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"} if token else {}
with flight.connect(uri, db_kwargs=options) as connection, connection.cursor() as cursor:
    for sql in statements:
        try:
            if sql == "\\d":
                found = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
                rows = [
                    ".".join([catalog["catalog_name"], schema["db_schema_name"], table["table_name"]])
                    for catalog in found
                    for schema in catalog["catalog_db_schemas"]
                    for table in schema["db_schema_tables"]
                ]
            else:
                cursor.execute(sql)
                rows = cursor.fetch_arrow_table().to_pylist()
            print(json.dumps({"rows": rows}))
        except Exception as error:
            print(json.dumps({"error": str(error)}))
