import com.amazon.randomcutforest.RandomCutForest;
import com.amazon.randomcutforest.config.Precision;
import com.amazon.randomcutforest.returntypes.DiVector;
import java.util.*;

// ForestGolden prints how anomalous software.amazon.randomcutforest finds points:
//   java -cp randomcutforest-core-4.4.0.jar ForestGolden.java > forest.txt
public class ForestGolden {
    public static void main(String[] args) {
        System.out.println("# Scores of software.amazon.randomcutforest:randomcutforest-core:4.4.0 (Java " + System.getProperty("java.version") + "), the mean of five seeds:");
        System.out.println("# 100 trees, samples of 256, time decay 1/100000. Made by: java -cp randomcutforest-core-4.4.0.jar ForestGolden.java > forest.txt");
        System.out.println("# a series; how many dimensions; then of every point: its coordinates, its score, and the parts of it that are high and low by dimension");
        Random r = new Random(7);
        for (String name : new String[] {"normal", "waves", "clusters"}) {
            int dims = name.equals("normal") ? 2 : name.equals("waves") ? 1 : 3, n = 900;
            double[][] points = new double[n][dims];
            for (int i = 0; i < n; i++) {
                for (int d = 0; d < dims; d++) {
                    switch (name) {
                        case "normal": points[i][d] = r.nextGaussian(); break;
                        case "waves": points[i][d] = 50 + 30 * Math.sin(i / 20.0) + r.nextGaussian(); break;
                        default: points[i][d] = 10 * (i % 3) * (d + 1) + r.nextGaussian() * 0.5;
                    }
                }
                if (i > 300 && i % 60 == 17) points[i][i / 60 % dims] += (i % 120 < 60 ? 1 : -1) * (name.equals("waves") ? 60 : 8);
                for (int d = 0; d < dims; d++) points[i][d] = Math.round(points[i][d] * 1000) / 1000.0;
            }
            double[] scores = new double[n];
            double[][] high = new double[n][dims], low = new double[n][dims];
            int seeds = 5;
            for (int seed = 1; seed <= seeds; seed++) {
                RandomCutForest f = RandomCutForest.builder().dimensions(dims).numberOfTrees(100).sampleSize(256).outputAfter(256).timeDecay(1 / 100000.0).randomSeed(seed).initialAcceptFraction(1.0).build();
                for (int i = 0; i < n; i++) {
                    if (i >= 256) {
                        scores[i] += f.getAnomalyScore(points[i]) / seeds;
                        DiVector v = f.getAnomalyAttribution(points[i]);
                        for (int d = 0; d < dims; d++) {
                            high[i][d] += v.high[d] / seeds;
                            low[i][d] += v.low[d] / seeds;
                        }
                    }
                    f.update(points[i]);
                }
            }
            System.out.println("series\t" + name + "\t" + dims);
            for (int i = 0; i < n; i++) {
                StringBuilder b = new StringBuilder();
                for (double v : points[i]) b.append(v).append('\t');
                b.append(String.format("%.4f", scores[i]));
                for (int d = 0; d < dims; d++) b.append(String.format("\t%.4f\t%.4f", high[i][d], low[i][d]));
                System.out.println(b);
            }
        }
    }
}
