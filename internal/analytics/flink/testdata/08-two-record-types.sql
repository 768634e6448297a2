-- input SOURCE_SQL_STREAM_001: RecordType VARCHAR(16) = $.RecordType; Oprice DOUBLE = $.Oprice; Otype VARCHAR(16) = $.Otype; Oid INTEGER = $.Oid; Oticker VARCHAR(8) = $.Oticker; Tid INTEGER = $.Trade.Tid; Toid INTEGER = $.Trade.Toid; Tprice DOUBLE = $.Trade.Tprice; Tticker VARCHAR(8) = $.Trade.Tticker
-- output COMBINED_COUNTS to arn:aws:kinesis:us-east-1:000000000000:stream/counts
CREATE OR REPLACE STREAM "ORDER_STREAM" ("order_id" INTEGER, "order_type" VARCHAR(10), "ticker" VARCHAR(4), "order_price" DOUBLE, "record_type" VARCHAR(10));
CREATE OR REPLACE PUMP "ORDER_PUMP" AS INSERT INTO "ORDER_STREAM"
SELECT STREAM "Oid", "Otype", "Oticker", "Oprice", "RecordType" FROM "SOURCE_SQL_STREAM_001" WHERE "RecordType" = 'Order';
CREATE OR REPLACE STREAM "TRADE_STREAM" ("trade_id" INTEGER, "order_id" INTEGER, "trade_price" DOUBLE, "ticker" VARCHAR(4), "record_type" VARCHAR(10));
CREATE OR REPLACE PUMP "TRADE_PUMP" AS INSERT INTO "TRADE_STREAM"
SELECT STREAM "Tid", "Toid", "Tprice", "Tticker", "RecordType" FROM "SOURCE_SQL_STREAM_001" WHERE "RecordType" = 'Trade';
CREATE OR REPLACE STREAM "COMBINED_COUNTS" ("kind" VARCHAR(10), "ticker" VARCHAR(4), "n" BIGINT);
CREATE OR REPLACE PUMP "ORDER_COUNT_PUMP" AS INSERT INTO "COMBINED_COUNTS"
SELECT STREAM "record_type", "ticker", COUNT(*) FROM "ORDER_STREAM" GROUP BY "record_type", "ticker", FLOOR("ORDER_STREAM".ROWTIME TO MINUTE);
CREATE OR REPLACE PUMP "TRADE_COUNT_PUMP" AS INSERT INTO "COMBINED_COUNTS"
SELECT STREAM "record_type", "ticker", COUNT(*) FROM "TRADE_STREAM" GROUP BY "record_type", "ticker", FLOOR("TRADE_STREAM".ROWTIME TO MINUTE);
