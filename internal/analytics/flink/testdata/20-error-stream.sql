-- input SOURCE_SQL_STREAM_001: TICKER_SYMBOL VARCHAR(4); SECTOR VARCHAR(16); CHANGE INTEGER; PRICE REAL
-- output DESTINATION_SQL_STREAM to arn:aws:kinesis:us-east-1:000000000000:stream/results
-- output error_stream to arn:aws:kinesis:us-east-1:000000000000:stream/errors
CREATE OR REPLACE STREAM "DESTINATION_SQL_STREAM" (ticker_symbol VARCHAR(4), sector VARCHAR(16), change REAL, price REAL, problem_column INTEGER);
CREATE OR REPLACE PUMP "STREAM_PUMP" AS INSERT INTO "DESTINATION_SQL_STREAM"
SELECT STREAM ticker_symbol, sector, change, price, 0 / change
FROM "SOURCE_SQL_STREAM_001"
WHERE sector SIMILAR TO '%TECH%';
