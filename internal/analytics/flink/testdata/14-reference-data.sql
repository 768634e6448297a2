-- input SOURCE_SQL_STREAM_001: TICKER_SYMBOL VARCHAR(4); SECTOR VARCHAR(16); CHANGE REAL; PRICE REAL
-- reference CompanyName: Ticker VARCHAR(4); Company VARCHAR(20)
-- output DESTINATION_SQL_STREAM to arn:aws:kinesis:us-east-1:000000000000:stream/results
CREATE OR REPLACE STREAM "DESTINATION_SQL_STREAM" (ticker_symbol VARCHAR(4), company VARCHAR(20), sector VARCHAR(12), change REAL, price REAL);
CREATE OR REPLACE PUMP "STREAM_PUMP" AS INSERT INTO "DESTINATION_SQL_STREAM"
SELECT STREAM ticker_symbol, "c"."Company", sector, change, price
FROM "SOURCE_SQL_STREAM_001" LEFT JOIN "CompanyName" AS "c"
ON "SOURCE_SQL_STREAM_001".ticker_symbol = "c"."Ticker";
