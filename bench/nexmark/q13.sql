-- Bounded side input: bids with a value of a reference table.
CREATE VIEW bid AS
  SELECT STREAM "b_auction" AS auction, "b_bidder" AS bidder, "b_price" AS price, "b_extra" AS extra
  FROM "NEXMARK_001" WHERE "event_type" = 2;

CREATE STREAM result_stream (auction BIGINT, bidder BIGINT, price BIGINT, side VARCHAR(16));
CREATE PUMP result_pump AS INSERT INTO result_stream
  SELECT STREAM b.auction, b.bidder, b.price, s."value"
  FROM bid AS b JOIN "side_input" AS s ON MOD(b.auction, 10000) = s."key";
