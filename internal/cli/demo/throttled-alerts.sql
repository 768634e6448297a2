-- Stocks that moved by more than 1 %, and how often within a minute.

CREATE OR REPLACE STREAM "MOVES" (ticker_symbol VARCHAR(4), percent DOUBLE);

CREATE OR REPLACE PUMP "MOVE_PUMP" AS
  INSERT INTO "MOVES"
  SELECT STREAM ticker_symbol, change / (price - change) * 100
  FROM "SOURCE_SQL_STREAM_001"
  WHERE ABS(change / (price - change)) * 100 > 1;

CREATE OR REPLACE STREAM "DESTINATION_SQL_STREAM" (ticker_symbol VARCHAR(4), percent DOUBLE, alerts BIGINT);

CREATE OR REPLACE PUMP "ALERT_PUMP" AS
  INSERT INTO "DESTINATION_SQL_STREAM"
  SELECT STREAM ticker_symbol, percent, alerts
  FROM (SELECT STREAM ticker_symbol, percent, COUNT(*) OVER (PARTITION BY ticker_symbol RANGE INTERVAL '1' MINUTE PRECEDING) AS alerts
        FROM "MOVES") AS m
  WHERE alerts = 1 OR MOD(alerts, 10) = 0;
