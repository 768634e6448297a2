import java.text.*;
import java.util.*;

// DateGolden prints what java.text.SimpleDateFormat makes of patterns:
//   java DateGolden.java > dates.txt
public class DateGolden {
    static String quote(String s) {
        StringBuilder b = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') b.append('\\').append(c);
            else if (c < 0x20 || c == 0x7f) b.append(String.format("\\u%04x", (int) c));
            else b.append(c);
        }
        return b.append('"').toString();
    }

    static SimpleDateFormat format(String pattern) {
        SimpleDateFormat f = new SimpleDateFormat(pattern, Locale.US);
        GregorianCalendar c = new GregorianCalendar(TimeZone.getTimeZone("UTC"), Locale.US);
        c.setTimeInMillis(NOW);
        c.add(Calendar.YEAR, -80);
        // The calendar of SQL has no Julian days.
        GregorianCalendar proleptic = (GregorianCalendar) c.clone();
        proleptic.setGregorianChange(new Date(Long.MIN_VALUE));
        f.setCalendar(proleptic);
        f.set2DigitYearStart(c.getTime());
        f.setLenient(false);
        return f;
    }

    static final long NOW = 1772366400000L; // 2026-03-01T12:00:00Z

    static void print(String pattern, long millis) {
        String out;
        try {
            out = quote(format(pattern).format(new Date(millis)));
        } catch (IllegalArgumentException e) {
            out = "bad";
        }
        System.out.println("format\t" + quote(pattern) + "\t" + millis + "\t" + out);
    }

    static void parse(String pattern, String text) {
        String out;
        try {
            Date d = format(pattern).parse(text, new ParsePosition(0));
            out = d == null ? "fail" : Long.toString(d.getTime());
        } catch (IllegalArgumentException e) {
            out = "bad";
        }
        System.out.println("parse\t" + quote(pattern) + "\t" + quote(text) + "\t" + out);
    }

    public static void main(String[] args) {
        System.setOut(new java.io.PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, java.nio.charset.StandardCharsets.UTF_8));
        System.out.println("# What java.text.SimpleDateFormat (Java " + System.getProperty("java.version") + ", en_US, UTC, Gregorian days only, not lenient, now 2026-03-01T12:00:00Z) makes of");
        System.out.println("# patterns. Made by: java DateGolden.java > dates.txt");
        long[] instants = {0, 1, -1, 951782399999L, 951827696007L, 1772366400000L, 1767225599999L, 1735732800000L, 1640390400045L, 1703980800120L, 253402300799999L, -2208988800000L + 43200000L};
        for (char letter : "GyYMLwWDdFEuaHkKhmsSzZX".toCharArray())
            for (int n = 1; n <= 6; n++)
                for (long ms : instants) print(String.valueOf(letter).repeat(n), ms);
        String[] whole = {"yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "EEE, d MMM yyyy hh:mm:ss a z", "''yyyy''", "h 'o''clock' a", "yyyyMMddHHmmssSSS", "'quoted y M d'", "yy/M/d K:m", "dd/MMM/yyyy:HH:mm:ss Z",
            "", "''", "''''", "'a''b'", "yyyy'", "'", "b", "e", "yyyy-jj", "Hé yyyy", "[yyyy] {MM} #dd!", "MMMMM", "EEEEEEEE", "G yyyy", "YYYY-'W'ww-u", "XXX XX X", "hh 'hours' kk KK HH", "yyyy.MM.dd\tHH", "t", "P", "Q", "V", "x", "O", "n", "N", "A", "c", "g"};
        for (String p : whole) for (long ms : new long[] {0, 951827696007L, 1772366400000L, 1767225599999L}) print(p, ms);
        String[][] texts = {
            {"yyyy-MM-dd", "2026-03-01", "2026-3-1", "2026-03-01 and more", "2026-13-01", "2026-00-01", "2026-02-29", "2024-02-29", "2026-02-30", "2026-04-31", "26-03-01", "226-03-01", "02026-003-0001", " 2026-03-01", "2026- 03-01", "2026 -03-01", "2026-03", "", "x", "-2026-03-01", "12026-03-01", "2026-03-00", "2026-03-32", "2026-03--1", "2026-03-+1", "０026-03-01", "1582-10-15", "0001-01-01", "2026.03.01", "1600-02-29", "1700-02-28"},
            {"yy-MM-dd", "26-03-01", "45-12-31", "46-02-28", "46-03-01", "46-03-02", "47-01-01", "99-01-01", "00-01-01", "2026-03-01", "126-03-01", "6-03-01", "006-03-01"},
            {"y-M-d", "26-3-1", "2026-3-1", "6-3-1", "80-1-1", "45-1-1", "46-12-31"},
            {"yyyyMMddHHmmss", "20260301123456", "2026030112345", "20260301 123456", "202603011234567", "2026x301123456", "20261301123456"},
            {"yyyyMMdd", "20260301", "2026031", "202603011", "2026 301", "2026 3 1"},
            {"yyMMdd", "260301", "991231", "460228", "460301"},
            {"yyyyMMddHHmmssSSS", "20260301123456007", "2026030112345607", "202603011234567"},
            {"HHmm", "1234", "123", "12345", "2460", "0000", "2359"},
            {"HH:mm:ss.SSS", "12:34:56.789", "12:34:56.5", "12:34:56.78", "12:34:56.1000", "12:34:56.0789", "12:34:56.", "24:00:00.000", "23:59:60.000", "23:60:59.000", "1:2:3.4", "12:34:56.999999"},
            {"hh:mm a", "12:00 AM", "12:00 PM", "12:30 am", "01:15 pm", "00:10 AM", "13:00 PM", "1:5 PM", "12:00", "12:00 XM", "11:59 PMx"},
            {"hh:mm", "12:00", "01:00", "00:30", "12:59"},
            {"KK:mm a", "00:00 AM", "11:00 PM", "12:00 AM"}, {"kk:mm", "24:00", "01:00", "00:00", "25:00"}, {"K", "0", "11", "12"}, {"k", "1", "24", "0"},
            {"a", "AM", "PM", "pm", "p", ""}, {"h a", "12 AM", "12 PM", "1 PM"}, {"H a", "3 PM", "15 PM", "15 AM"},
            {"d MMM yyyy", "1 Mar 2026", "1 March 2026", "1 mar 2026", "01 MAR 2026", "1 3 2026", "1 Marc 2026", "1 Sept 2026", "1 May 2026", "31 Apr 2026", "1  Mar 2026", "1 Mai 2026"},
            {"d MMMM yyyy", "1 Mar 2026", "1 March 2026", "1 DECEMBER 2025", "1 marchy 2026"}, {"MMMyyyy", "Mar2026", "March2026"}, {"MMMdd", "Mar01", "March1"}, {"LLL yyyy", "Mar 2026", "March 2026"}, {"LL yyyy", "03 2026"},
            {"EEE, d MMM yyyy HH:mm:ss Z", "Sun, 1 Mar 2026 12:34:56 +0000", "Sun, 1 Mar 2026 12:34:56 -0800", "Sunday, 1 Mar 2026 12:34:56 +0530", "sun, 1 Mar 2026 12:34:56 GMT", "Sun, 1 Mar 2026 12:34:56 UTC", "Sun, 1 Mar 2026 12:34:56 PST", "Sun, 1 Mar 2026 12:34:56 EDT", "Sun, 1 Mar 2026 12:34:56 GMT+01:00", "Sun, 1 Mar 2026 12:34:56 +2400", "Sun, 1 Mar 2026 12:34:56 +0160", "Sun, 1 Mar 2026 12:34:56", "Sun, 1 Mar 2026 12:34:56 0000", "Sun, 1 Mar 2026 12:34:56 Z", "Sun, 1 Mar 2026 12:34:56 +01", "Sun, 1 Mar 2026 12:34:56 GMT+1"},
            {"dd/MMM/yyyy:HH:mm:ss Z", "10/Oct/2000:13:55:36 -0700", "10/Oct/2000:13:55:36 -07:00"},
            {"yyyy-MM-dd'T'HH:mm:ssX", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00+01", "2026-03-01T00:00:00-08", "2026-03-01T00:00:00+0130", "2026-03-01T00:00:00+01:30", "2026-03-01T00:00:00z", "2026-03-01T00:00:00", "2026-03-01T00:00:00GMT", "2026-03-01T00:00:00+1"},
            {"yyyy-MM-dd'T'HH:mm:ssXX", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00+01", "2026-03-01T00:00:00+0130", "2026-03-01T00:00:00+01:30", "2026-03-01T00:00:00+2500"},
            {"yyyy-MM-dd'T'HH:mm:ssXXX", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00+01", "2026-03-01T00:00:00+0130", "2026-03-01T00:00:00+01:30"},
            {"HH:mm z", "12:00 GMT", "12:00 UTC", "12:00 PST", "12:00 +0100", "12:00 -03:00", "12:00 CET", "12:00 Pacific Standard Time", "12:00 GMT-03:00", "12:00 utc", "12:00 EST"},
            {"yyyy-DDD", "2026-060", "2024-366", "2026-366", "2026-0", "2026-1"}, {"D", "45", "367"}, {"yyyy", "2026", "999", "1", "0", "10000"}, {"yyyy G", "2026 AD", "44 BC", "1 BC", "44 bc", "44"}, {"MM", "07"}, {"dd", "15"}, {"ss", "59"}, {"SSS", "5", "50", "500", "5000"}, {"S", "7", "70", "700"}, {"SSSSSS", "123456", "000123", "123"},
            {"u", "1", "7", "8", "0"}, {"w", "1", "10"}, {"W", "1"}, {"F", "2"}, {"E", "Mon", "Thu", "xyz"}, {"EEEE", "Thursday", "Thu"},
            {"'at' HH", "at 12", "AT 12", "at  12", "at12"}, {"HH'h'", "12h", "12H", "12"}, {"''yy''", "'26'", "26"}, {"yyyy-hh-mm", "2009-09-16 10:00:00"}, {"HH:mm", "１２:30", "+1:30", "-1:30"},
        };
        for (String[] row : texts) for (int i = 1; i < row.length; i++) parse(row[0], row[i]);
    }
}
