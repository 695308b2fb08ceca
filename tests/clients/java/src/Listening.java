import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** LISTEN by pgjdbc; tests/tests/listening/drivers.rs says how. */
public final class Listening {
    private static final int LISTENERS = 12;

    private final Connection connection;
    private final String channel;
    private final Deque<PGNotification> heard = new ArrayDeque<>();

    private Listening(int number) throws SQLException {
        connection = open();
        channel = queue(number);
        run("listen \"" + channel + "\"");
    }

    public static void main(String[] arguments) throws Exception {
        List<Listening> clients = new ArrayList<>();
        for (int number = 0; number < LISTENERS; number++) {
            clients.add(new Listening(number));
        }
        Connection other = open();
        for (int n = 0; n < 30; n++) {
            tell(other, queue(n), Integer.toString(n));
        }
        for (int number = 0; number < LISTENERS; number++) {
            for (int n = number % 3; n < 30; n += 3) {
                clients.get(number).hears(Integer.toString(n));
            }
        }
        clients.get(1).run("notify \"" + queue(1) + "\", 'own'");
        for (int number = 1; number < LISTENERS; number += 3) {
            clients.get(number).hears("own");
        }
        System.out.println("look at the loss");
        System.out.flush();
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        for (Listening client : clients) {
            while (!client.hasHeard(20)) {
                tell(other, client.channel, "again");
            }
            client.hears("again");
        }
        System.out.println("all done");
    }

    private static String queue(int number) {
        return "Queue " + number % 3;
    }

    private static Connection open() throws SQLException {
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGIMBAL_PORT") + "/app";
        return DriverManager.getConnection(url + "?sslmode=disable", "scram", "scram-secret");
    }

    private static void tell(Connection connection, String channel, String payload) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("select pg_notify(?, ?)")) {
            statement.setString(1, channel);
            statement.setString(2, payload);
            statement.execute();
        }
    }

    private void run(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    /** Whether a notification has come, or comes within so many milliseconds. */
    private boolean hasHeard(int milliseconds) throws SQLException {
        if (heard.isEmpty()) {
            PGNotification[] told = connection.unwrap(PGConnection.class).getNotifications(milliseconds);
            heard.addAll(List.of(told == null ? new PGNotification[0] : told));
        }
        return !heard.isEmpty();
    }

    private void hears(String payload) throws SQLException {
        // The test ends a program that takes too long.
        while (!hasHeard(1000)) {
            Thread.onSpinWait();
        }
        PGNotification told = heard.remove();
        if (!told.getName().equals(channel) || !told.getParameter().equals(payload)) {
            throw new AssertionError(told.getName() + " " + told.getParameter() + ", not " + payload);
        }
    }
}
