import java.util.*;
import java.util.regex.*;

// RegexpGolden prints what java.util.regex makes of expressions and texts:
//   java RegexpGolden.java > regexps.txt
public class RegexpGolden {
    static String quote(String s) {
        if (s == null) return "null";
        StringBuilder b = new StringBuilder("\"");
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c == '"' || c == '\\') b.append('\\').append(c);
            else if (c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029) b.append(String.format("\\u%04x", (int) c));
            else b.append(c);
        }
        return b.append('"').toString();
    }

    static void find(String pattern, String text) {
        StringBuilder b = new StringBuilder("match\t" + quote(pattern) + "\t" + quote(text));
        try {
            Pattern p = Pattern.compile(pattern);
            Matcher m = p.matcher(text);
            b.append('\t').append(m.find() ? quote(m.group()) : "no");
            b.append('\t').append(quote(p.matcher(text).replaceAll("<$0>")));
            m = p.matcher(text);
            if (!m.matches()) b.append("\tno");
            else {
                b.append("\tyes");
                for (int g = 1; g <= m.groupCount(); g++) b.append('\t').append(quote(m.group(g)));
            }
        } catch (PatternSyntaxException e) {
            b.append("\tbad");
        }
        System.out.println(b);
    }

    static void replace(String pattern, String text, String replacement) {
        String out;
        try {
            out = quote(Pattern.compile(pattern).matcher(text).replaceAll(replacement));
        } catch (PatternSyntaxException e) {
            out = "bad";
        } catch (IllegalArgumentException | IndexOutOfBoundsException e) {
            out = "error";
        }
        System.out.println("replace\t" + quote(pattern) + "\t" + quote(text) + "\t" + quote(replacement) + "\t" + out);
    }

    public static void main(String[] args) {
        System.setOut(new java.io.PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, java.nio.charset.StandardCharsets.UTF_8));
        System.out.println("# What java.util.regex (Java " + System.getProperty("java.version") + ") makes of expressions and texts.");
        System.out.println("# Made by: java RegexpGolden.java > regexps.txt");
        System.out.println("# match: expression, text, first match, all of them put into <>, yes and the groups if the whole text matches");
        System.out.println("# replace: expression, text, replacement, result");
        String[] patterns = {
            "", "a", "abc", ".", ".*", ".+", "a*", "a+?", "(a|b)*", "(a*)*", "(a|ab)(c|bcd)", "x*", "[abc]+", "[^abc]+", "[a-c&&[^b]]+", "[a-z&&[aeiou]]", "[a[bc]]+", "[[:alpha:]]+", "[a&&b]", "[a-z&&[^m-p]&&[^c]]+", "[^a[b]]", "[]a]", "[a-]+", "[-a]+", "[\\w&&[^\\d]]+", "[\\s\\d]+",
            "\\d+", "\\D+", "\\s", "\\S+", "\\w+", "\\W+", "\\h+", "\\v", "\\R", "\\bfoo\\b", "\\Bo", "^a", "a$", "^", "$", "\\Aa", "a\\z", "a\\Z", "(?m)^.", "(?m).$", "(?s).+", "(?i)ABC", "(?i)k", "(?i)[a-c]+", "(?iu)é", "(?i)é", "(?x) a b # c\n c", "(?-i)a", "a(?i)b", "(?i:A)b", "(?d).+",
            "(a)(b)?(c)", "(?:a|b)+c", "(?<x>a)(b)", "(b)(?<x>a)?", "(\\w)\\1", "(?<q>['\"]).*?\\k<q>", "(a)\\2", "(a)(b)\\2\\1", "(a)\\11", "\\1(a)", "foo(?=bar)", "foo(?!bar)", "(?<=foo)bar", "(?<!foo)bar", "(?<=a{1,3})b", "(?>a+)b", "(?>a|ab)c", "a++b", "a*+a", "(?:ab)?+c", "[ab]++c", "a{2}+", ".*+x", "\\d++\\.",
            "a{2}", "a{2,}", "a{1,2}", "a{,2}", "a{0}", "{", "a{", "a}", "]", "*", "+a", "a**", "(", ")", "[", "a|", "|a", "(|a)b", "()", "a|b|", "\\", "(?", "(?<", "(?<1>a)", "(?P<x>a)", "\\Qa.b\\E+", "\\Q*\\E", "\\Q*", "\\p{Alpha}+", "\\p{Lower}+", "\\p{Upper}", "\\p{Punct}+", "\\p{Digit}", "\\p{Alnum}+", "\\p{Space}", "\\p{L}+", "\\p{Lu}", "\\pL+", "\\PL+", "\\P{L}+", "\\p{IsAlphabetic}+", "\\p{IsLatin}+", "\\p{javaLowerCase}+", "\\p{XDigit}+", "\\p{Blank}", "\\p{Cntrl}", "\\p{Graph}+", "\\p{Print}+", "\\p{ASCII}+", "\\p{Nope}", "[\\p{L}\\d]+", "[^\\p{Punct}]+",
            "\\x41", "\\u0041", "\\x{41}", "\\0101", "\\t", "\\n", "\\e", "\\a", "\\f", "\\cA", "\\.", "\\-", "\\y", "\\_", "\\é", "a.c", "(a+)+$", "^(\\S+) (\\S+)$", "(\\d{4})-(\\d\\d)-(\\d\\d)", "([^,]*),([^,]*)", "(?:(\\d+)|(\\w+))+", "(a|b(c))*", "((a)|b)*", "(?i)straße", "[é-ü]+", "é", "[^\\n]+", "\\G.", "(?=a)", "(?!a).", "a?", "a??b", "(?:)", "((((a))))", "\\w+@\\w+\\.com", "(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)\\11", "#", " ", "a b", "[#]", "[ ]", "[\\]]", "[\\[a]+", "[a\\-z]+", "[+--]", "[\\x41-\\x43]+", "[\\u0041-\\u0043]+", "(?s-i:.)a", "~", "\"", "(?<=^|,)[^,]*", "\\bé", "[&&a]", "[a&&]", "[a&]", "[a&&&b]+",
        };
        String[] texts = {"", "a", "abc", "ABC", "aab", "foobar foo bar", "2026-03-01", "a,b,,c", "éÉ straße", "x\ny\r\nz\n", "a b\tc", "'q' \"r\" aa", "k\u212a.K*", "abababababac1.5"};
        for (String p : patterns) for (String t : texts) find(p, t);
        String[][] replacements = {
            {"(a)(b)", "xabx", "$2$1", "[$0]", "$3", "$", "$x", "\\$1", "\\\\", "\\", "a\\nb", "$10", "$1a", "${x}", "${1x}", "", "é$1é", "\\é", "$1$", "$ 1", "$01"},
            {"(?<x>a)", "banana", "${x}${x}", "$1", "${y}", "${x", "$x"}, {"x*", "abxxc", "-", "$0$0"}, {"", "abc", "-"}, {"(a)|b", "ab", "[$1]"}, {"(.)\\1", "aabbc", "<$1>"}, {"(?=b)", "abab", "|"}, {"\\b", "ab cd", "|"}, {"$", "a\n", "!"}, {"^", "a\nb", "!"}, {"(?m)^", "a\nb\n", "!"}, {"(?m)$", "a\nb\n", "!"}, {"a*+", "baac", "-"}, {"b", "aaa", "$9"}, {"(1)(2)(3)(4)(5)(6)(7)(8)(9)(0)", "1234567890", "$10$1$11", "$100"}, {"é+", "aééb", "e"}, {"\uD83D\uDE00", "a\uD83D\uDE00b", ":)"}, {".", "a\uD83D\uDE00b", "."}, {"(?<=\uD83D\uDE00)b", "a\uD83D\uDE00b", "x"},
        };
        for (String[] row : replacements) for (int i = 2; i < row.length; i++) replace(row[0], row[1], row[i]);
    }
}
