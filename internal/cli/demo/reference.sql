-- Trades with the name of the sector from a table in a bucket.

CREATE OR REPLACE STREAM "DESTINATION_SQL_STREAM" (ticker_symbol VARCHAR(4), "Name" VARCHAR(40), price REAL);

CREATE OR REPLACE PUMP "STREAM_PUMP" AS
  INSERT INTO "DESTINATION_SQL_STREAM"
  SELECT STREAM ticker_symbol, s."Name", price
  FROM "SOURCE_SQL_STREAM_001"
  LEFT JOIN "Sectors" AS s ON "SOURCE_SQL_STREAM_001".sector = s."Sector";
