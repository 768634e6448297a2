-- Windows of processing time: bids of a bidder in ten seconds.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM result_stream (bidder BIGINT, bids BIGINT);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM bidder, COUNT(*) FROM bid GROUP BY bidder, STEP(bid.ROWTIME BY INTERVAL '10' SECOND);
