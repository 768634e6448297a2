-- Currency conversion: prices of bids from dollars to euros.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM result_stream (auction BIGINT, bidder BIGINT, price DECIMAL(18,3), made TIMESTAMP, extra VARCHAR(256));
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM auction, bidder, 0.908 * price, bid.ROWTIME, extra FROM bid;
