-- input SOURCE_SQL_STREAM_001: TICKER_SYMBOL VARCHAR(4); SECTOR VARCHAR(16); CHANGE REAL; PRICE REAL
-- output TRIGGER_COUNT_STREAM to arn:aws:lambda:us-east-1:000000000000:function:alert
CREATE OR REPLACE STREAM "CHANGE_STREAM" (ticker_symbol VARCHAR(4), sector VARCHAR(12), change DOUBLE, price DOUBLE);
CREATE OR REPLACE PUMP "change_pump" AS INSERT INTO "CHANGE_STREAM"
SELECT STREAM ticker_symbol, sector, change, price FROM "SOURCE_SQL_STREAM_001" WHERE (ABS(change / (price - change)) * 100) > 1;
CREATE OR REPLACE STREAM "TRIGGER_COUNT_STREAM" (ticker_symbol VARCHAR(4), change REAL, trigger_count INTEGER);
CREATE OR REPLACE PUMP "trigger_count_pump" AS INSERT INTO "TRIGGER_COUNT_STREAM"
SELECT STREAM ticker_symbol, change, trigger_count
FROM (SELECT STREAM ticker_symbol, change, COUNT(*) OVER W1 AS trigger_count
      FROM "CHANGE_STREAM"
      WINDOW W1 AS (PARTITION BY ticker_symbol RANGE INTERVAL '1' MINUTE PRECEDING))
WHERE trigger_count >= 1;
