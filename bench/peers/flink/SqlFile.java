import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/**
 * Runs a file of Flink SQL statements, which end with a semicolon and a line
 * break, on the cluster that the configuration in a folder names, and waits for
 * the end of every job.
 *
 * <pre>SqlFile CONFIGURATION-FOLDER FILE</pre>
 */
public final class SqlFile {
  public static void main(String[] args) throws Exception {
    Configuration configuration = GlobalConfiguration.loadConfiguration(args[0]);
    TableEnvironment table =
        TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
    for (String statement : Files.readString(Path.of(args[1])).split(";\\s*\n")) {
      if (statement.isBlank()) {
        continue;
      }
      TableResult result = table.executeSql(statement);
      if (result.getJobClient().isPresent()) {
        result.await();
      }
    }
  }
}
