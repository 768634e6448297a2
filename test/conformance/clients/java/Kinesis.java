import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.reactivestreams.Subscriber;
import org.reactivestreams.Subscription;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.awscore.exception.AwsServiceException;
import software.amazon.awssdk.core.SdkClient;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.SdkField;
import software.amazon.awssdk.core.SdkPojo;
import software.amazon.awssdk.core.async.SdkPublisher;
import software.amazon.awssdk.core.client.builder.SdkSyncClientBuilder;
import software.amazon.awssdk.core.protocol.MarshallingType;
import software.amazon.awssdk.core.traits.ListTrait;
import software.amazon.awssdk.core.traits.MapTrait;
import software.amazon.awssdk.core.util.SdkAutoConstructList;
import software.amazon.awssdk.core.util.SdkAutoConstructMap;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.SdkHttpConfigurationOption;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.services.firehose.FirehoseClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardEvent;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardEventStream;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardRequest;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardResponse;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardResponseHandler;
import software.amazon.awssdk.services.kinesisanalytics.KinesisAnalyticsClient;
import software.amazon.awssdk.services.kinesisanalyticsv2.KinesisAnalyticsV2Client;
import software.amazon.awssdk.utils.AttributeMap;
import software.amazon.awssdk.utils.builder.Buildable;

/**
 * Calls Kinesis, or the service that the second argument names, through the AWS SDK for Java v2,
 * synchronous or asynchronous, as told line by line.
 *
 * <p>Each line of standard input is {"op": name, "in": {...}}; each line of standard output answers
 * one. Bytes are {"$blob": base64}, times {"$time": milliseconds}. Requests are built and replies
 * taken apart by the field tables that every generated class carries.
 */
public final class Kinesis {
  private final Object client;
  private final Class<?> type;
  private final String model; // the package of requests

  private Kinesis(Object client, Class<?> type) {
    this.client = client;
    this.type = type;
    this.model = type.getPackageName() + ".model.";
  }

  /** The synchronous client of each service, by what the command line calls it. */
  private static final Map<String, Class<? extends SdkClient>> SERVICES =
      Map.of(
          "firehose", FirehoseClient.class,
          "kinesis", KinesisClient.class,
          "kinesisanalytics", KinesisAnalyticsClient.class,
          "kinesisanalyticsv2", KinesisAnalyticsV2Client.class);

  public static void main(String[] args) throws Exception {
    URI endpoint = URI.create(System.getenv("ENDPOINT"));
    AttributeMap trusting =
        AttributeMap.builder()
            .put(SdkHttpConfigurationOption.TRUST_ALL_CERTIFICATES, endpoint.getScheme().equals("https"))
            .build();
    Object client;
    Class<?> type;
    if (args[0].equals("sync")) {
      type = SERVICES.get(args.length > 1 ? args[1] : "kinesis");
      var builder = (AwsClientBuilder<?, ?>) type.getMethod("builder").invoke(null);
      builder.endpointOverride(endpoint);
      builder.overrideConfiguration(o -> o.retryStrategy(r -> r.maxAttempts(1)));
      ((SdkSyncClientBuilder<?, ?>) builder)
          .httpClient(UrlConnectionHttpClient.builder().buildWithDefaults(trusting));
      client = builder.build();
    } else {
      type = KinesisAsyncClient.class;
      client =
          KinesisAsyncClient.builder()
              .endpointOverride(endpoint)
              .httpClient(
                  NettyNioAsyncHttpClient.builder()
                      .protocol(Protocol.HTTP2)
                      .readTimeout(Duration.ofSeconds(60))
                      .buildWithDefaults(trusting))
              .overrideConfiguration(o -> o.retryStrategy(r -> r.maxAttempts(1)))
              .build();
    }
    Kinesis kinesis = new Kinesis(client, type);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    for (String line; (line = in.readLine()) != null; ) {
      StringBuilder answer = new StringBuilder();
      write(answer, kinesis.call(JsonNode.parser().parse(line)));
      out.print(answer.append('\n'));
      out.flush();
    }
    System.exit(0);
  }

  private Map<String, Object> call(JsonNode request) {
    String op = request.field("op").get().text();
    Class<?> input;
    try {
      input = Class.forName(model + op + "Request");
    } catch (ClassNotFoundException e) {
      return Map.of("unknown", true);
    }
    try {
      Object in = build(input, request.field("in").get());
      if (op.equals("SubscribeToShard")) {
        if (!(client instanceof KinesisAsyncClient async)) {
          return Map.of("unknown", true);
        }
        int wanted = request.field("records").map(n -> Integer.parseInt(n.text())).orElse(0);
        return Map.of("out", subscribe(async, (SubscribeToShardRequest) in, wanted));
      }
      Object output = type.getMethod(lower(op), input).invoke(client, in);
      if (output instanceof CompletableFuture<?> future) {
        output = future.get(60, TimeUnit.SECONDS);
      }
      return Map.of("out", take((SdkPojo) output));
    } catch (UnknownMember e) {
      return Map.of("member", e.getMessage());
    } catch (Throwable e) {
      return Map.of("error", failure(e));
    }
  }

  private static Map<String, Object> subscribe(
      KinesisAsyncClient client, SubscribeToShardRequest request, int wanted) throws Exception {
    List<Object> events = new ArrayList<>();
    Map<String, Object> result = new LinkedHashMap<>();
    CompletableFuture<Boolean> enough = new CompletableFuture<>();
    SubscribeToShardResponseHandler handler =
        new SubscribeToShardResponseHandler() {
          private int records;

          @Override
          public void responseReceived(SubscribeToShardResponse response) {}

          @Override
          public void onEventStream(SdkPublisher<SubscribeToShardEventStream> publisher) {
            publisher.subscribe(
                new Subscriber<>() {
                  private Subscription subscription;

                  @Override
                  public void onSubscribe(Subscription s) {
                    subscription = s;
                    s.request(1);
                  }

                  @Override
                  public void onNext(SubscribeToShardEventStream e) {
                    if (e instanceof SubscribeToShardEvent event) {
                      synchronized (events) {
                        events.add(take(event));
                      }
                      records += event.records().size();
                      if (wanted > 0 && records >= wanted) {
                        enough.complete(true);
                        subscription.cancel();
                        return;
                      }
                    }
                    subscription.request(1);
                  }

                  @Override
                  public void onError(Throwable t) {}

                  @Override
                  public void onComplete() {}
                });
          }

          @Override
          public void exceptionOccurred(Throwable t) {}

          @Override
          public void complete() {}
        };
    CompletableFuture<Void> whole = client.subscribeToShard(request, handler);
    CompletableFuture.anyOf(enough, whole.exceptionally(e -> null)).get(360, TimeUnit.SECONDS);
    if (!enough.isDone()) {
      try {
        whole.get();
      } catch (ExecutionException e) {
        if (events.isEmpty()) {
          throw e;
        }
        result.put("Failure", failure(e));
      }
    }
    synchronized (events) {
      result.put("Events", new ArrayList<>(events));
    }
    result.put("Ended", !enough.isDone());
    return result;
  }

  private static Map<String, Object> failure(Throwable e) {
    while ((e instanceof InvocationTargetException
            || e instanceof ExecutionException
            || e instanceof CompletionException)
        && e.getCause() != null) {
      e = e.getCause();
    }
    Map<String, Object> m = new LinkedHashMap<>();
    if (e instanceof AwsServiceException service && service.awsErrorDetails() != null) {
      m.put("code", String.valueOf(service.awsErrorDetails().errorCode()));
      String text = service.awsErrorDetails().errorMessage();
      m.put("message", text == null ? "" : text);
      m.put("status", service.statusCode());
      return m;
    }
    m.put("code", "ClientSide");
    m.put("message", e + (e.getCause() == null ? "" : ": " + e.getCause()));
    m.put("status", 0);
    return m;
  }

  private static String lower(String name) {
    return Character.toLowerCase(name.charAt(0)) + name.substring(1);
  }

  private static Object build(Class<?> type, JsonNode from) throws Exception {
    return fill((SdkPojo) type.getMethod("builder").invoke(null), from);
  }

  private static final class UnknownMember extends RuntimeException {
    UnknownMember(String name) {
      super(name);
    }
  }

  @SuppressWarnings("unchecked")
  private static Object fill(SdkPojo builder, JsonNode from) {
    Map<String, JsonNode> members = from.asObject();
    for (String name : members.keySet()) {
      if (builder.sdkFields().stream().noneMatch(f -> f.memberName().equals(name))) {
        throw new UnknownMember(name);
      }
    }
    for (SdkField<?> field : builder.sdkFields()) {
      JsonNode value = members.get(field.memberName());
      if (value != null) {
        ((SdkField<Object>) field).set(builder, value(field, value));
      }
    }
    return ((Buildable) builder).build();
  }

  private static Object value(SdkField<?> field, JsonNode from) {
    MarshallingType<?> type = field.marshallingType();
    if (type == MarshallingType.SDK_POJO) {
      return fill(field.constructor().get(), from);
    }
    if (type == MarshallingType.LIST) {
      SdkField<?> member = field.getTrait(ListTrait.class).memberFieldInfo();
      List<Object> list = new ArrayList<>();
      from.asArray().forEach(v -> list.add(value(member, v)));
      return list;
    }
    if (type == MarshallingType.MAP) {
      SdkField<?> member = field.getTrait(MapTrait.class).valueFieldInfo();
      Map<String, Object> map = new LinkedHashMap<>();
      from.asObject().forEach((k, v) -> map.put(k, value(member, v)));
      return map;
    }
    if (type == MarshallingType.SDK_BYTES) {
      return SdkBytes.fromByteArray(Base64.getDecoder().decode(from.field("$blob").get().text()));
    }
    if (type == MarshallingType.INSTANT) {
      return Instant.ofEpochMilli(Long.parseLong(from.field("$time").get().text()));
    }
    if (type == MarshallingType.INTEGER) {
      return Integer.valueOf(from.text());
    }
    if (type == MarshallingType.LONG) {
      return Long.valueOf(from.text());
    }
    if (type == MarshallingType.BOOLEAN) {
      return from.asBoolean();
    }
    return from.text();
  }

  private static Map<String, Object> take(SdkPojo from) {
    Map<String, Object> out = new LinkedHashMap<>();
    for (SdkField<?> field : from.sdkFields()) {
      Object value = field.getValueOrDefault(from);
      if (value == null || value instanceof SdkAutoConstructList || value instanceof SdkAutoConstructMap) {
        continue;
      }
      out.put(field.memberName(), plain(value));
    }
    return out;
  }

  private static Object plain(Object value) {
    if (value instanceof SdkPojo pojo) {
      return take(pojo);
    }
    if (value instanceof List<?> list) {
      return list.stream().map(Kinesis::plain).toList();
    }
    if (value instanceof Map<?, ?> map) {
      Map<String, Object> out = new LinkedHashMap<>();
      map.forEach((k, v) -> out.put(k.toString(), plain(v)));
      return out;
    }
    if (value instanceof SdkBytes bytes) {
      return Map.of("$blob", Base64.getEncoder().encodeToString(bytes.asByteArray()));
    }
    if (value instanceof Instant time) {
      return Map.of("$time", time.toEpochMilli());
    }
    return value;
  }

  private static void write(StringBuilder b, Object value) {
    if (value instanceof Map<?, ?> map) {
      char separator = '{';
      if (map.isEmpty()) {
        b.append('{');
      }
      for (Map.Entry<?, ?> e : map.entrySet()) {
        b.append(separator);
        write(b, e.getKey().toString());
        b.append(':');
        write(b, e.getValue());
        separator = ',';
      }
      b.append('}');
    } else if (value instanceof List<?> list) {
      b.append('[');
      for (int i = 0; i < list.size(); i++) {
        if (i > 0) {
          b.append(',');
        }
        write(b, list.get(i));
      }
      b.append(']');
    } else if (value instanceof Number || value instanceof Boolean) {
      b.append(value);
    } else {
      b.append('"');
      for (char c : value.toString().toCharArray()) {
        if (c == '"' || c == '\\') {
          b.append('\\').append(c);
        } else if (c < 0x20) {
          b.append(String.format("\\u%04x", (int) c));
        } else {
          b.append(c);
        }
      }
      b.append('"');
    }
  }
}
