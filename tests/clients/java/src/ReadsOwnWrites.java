import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicLongArray;

/** Writes and reads back by pgjdbc; tests/tests/reads/drivers.rs says how. */
public final class ReadsOwnWrites {
    private static final String WRITE = "update pairs set pair = ? where id = ? and pair < ?";
    private static final String READ = "select pair, is_standby() from pairs where id = ?";
    private static final String[] WAYS = {"autocommit", "transaction", "read_only"};
    private static final int PAIRS = number("READS_PAIRS");
    private static final double PAUSE = Double.parseDouble(System.getenv("READS_PAUSE"));
    private static final AtomicLongArray counts = new AtomicLongArray(WAYS.length);
    private static final AtomicLongArray onReplicas = new AtomicLongArray(WAYS.length);
    private static CountDownLatch running;
    private static volatile boolean over;

    private final int id;
    private Connection writer;
    private Connection reader;

    private ReadsOwnWrites(int id) {
        this.id = id;
    }

    public static void main(String[] arguments) throws Exception {
        int clients = number("READS_CLIENTS");
        running = new CountDownLatch(clients);
        List<Thread> threads = new ArrayList<>();
        for (int index = 0; index < clients; index++) {
            Thread thread = new Thread(new ReadsOwnWrites(number("READS_FIRST_ID") + index)::run);
            thread.start();
            threads.add(thread);
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        running.await();
        lookAt(input, "running");
        over = true;
        for (Thread thread : threads) {
            thread.join();
        }
        for (int way = 0; way < WAYS.length; way++) {
            lookAt(input, WAYS[way] + " " + counts.get(way) + " " + onReplicas.get(way));
        }
        System.out.println("all done");
    }

    private static int number(String name) {
        return Integer.parseInt(System.getenv(name));
    }

    private static void lookAt(BufferedReader input, String what) throws IOException {
        System.out.println("look at " + what);
        System.out.flush();
        input.readLine();
    }

    private void run() {
        for (int pair = 1; pair <= PAIRS || !over; pair++) {
            if (pair == 2) {
                running.countDown();
            }
            try {
                pair(pair % WAYS.length, pair);
            } catch (SQLException error) {
                System.err.println("client " + id + ": " + error.getSQLState() + " " + error.getMessage());
                disconnect();
                pause(0.05);
            }
        }
        disconnect();
    }

    private void pair(int way, int pair) throws SQLException {
        if (reader == null) {
            connect();
        }
        write(way, pair);
        // Every second read follows its write at once.
        ThreadLocalRandom random = ThreadLocalRandom.current();
        if (random.nextBoolean()) {
            pause(random.nextDouble() * PAUSE);
        }
        read(way, pair);
    }

    private void write(int way, int pair) throws SQLException {
        boolean alone = WAYS[way].equals("autocommit");
        writer.setAutoCommit(alone);
        try (PreparedStatement write = writer.prepareStatement(WRITE)) {
            write.setInt(1, pair);
            write.setInt(2, id);
            write.setInt(3, pair);
            write.executeUpdate();
        }
        if (!alone) {
            writer.commit();
        }
    }

    private void read(int way, int pair) throws SQLException {
        boolean alone = !WAYS[way].equals("read_only");
        // READ ONLY in autocommit would be a setting of the session.
        reader.setAutoCommit(alone);
        reader.setReadOnly(!alone);
        try (PreparedStatement read = reader.prepareStatement(READ)) {
            read.setInt(1, id);
            try (ResultSet row = read.executeQuery()) {
                row.next();
                if (row.getInt(1) != pair) {
                    System.err.printf("a stale read of %d: %d instead of %d, %s, on a replica: %b%n",
                            id, row.getInt(1), pair, WAYS[way], row.getBoolean(2));
                    System.exit(1);
                }
                counts.incrementAndGet(way);
                onReplicas.addAndGet(way, row.getBoolean(2) ? 1 : 0);
            }
        }
        if (!alone) {
            reader.commit();
            reader.setReadOnly(false);
        }
    }

    private void connect() throws SQLException {
        writer = open("READS_WRITE_PORT", "READS_WRITE_DATABASE");
        boolean same = System.getenv("READS_SESSIONS").equals("same");
        reader = same ? writer : open("PGIMBAL_PORT", "READS_DATABASE");
    }

    private static Connection open(String port, String database) throws SQLException {
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv(port) + "/" + System.getenv(database);
        return DriverManager.getConnection(url, "app", "app-secret");
    }

    private void disconnect() {
        for (Connection connection : new Connection[] {writer, reader}) {
            try {
                if (connection != null) {
                    connection.close();
                }
            } catch (SQLException gone) {
                // It need not be closed any more.
            }
        }
        writer = null;
        reader = null;
    }

    private static void pause(double seconds) {
        try {
            Thread.sleep((long) (seconds * 1000));
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
