import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.Plugin;
import org.opensearch.transport.Netty4Plugin;

/** One OpenSearch node of its own: SearchNode HOME HTTP-PORT TRANSPORT-PORT. Ends with its standard input. */
public class SearchNode extends Node {
    private SearchNode(Settings settings, Collection<Class<? extends Plugin>> plugins) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node"), plugins, false);
    }

    public static void main(String[] args) throws Exception {
        Settings settings = Settings.builder()
            .put("path.home", args[0])
            .put("cluster.name", "test")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", args[1])
            .put("transport.port", args[2])
            .put("transport.type", "netty4")
            .put("http.type", "netty4")
            .put("node.processors", 1)
            .put("http.max_content_length", "8mb")
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        try (SearchNode node = new SearchNode(settings, List.of(Netty4Plugin.class))) {
            node.start();
            while (System.in.read() >= 0) {
                // the test still lives
            }
        }
    }
}
