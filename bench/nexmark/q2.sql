-- Selection: bids on some auctions.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM result_stream (auction BIGINT, price BIGINT);
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM auction, price FROM bid WHERE MOD(auction, 123) = 0;
