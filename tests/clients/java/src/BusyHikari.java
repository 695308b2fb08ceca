import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A busy HikariCP with its defaults over pgjdbc: it asks a connection whether it lives when that
 * has lain idle for more than half a second. tests/src/busy_pool.rs has the conversation.
 */
public final class BusyHikari {
    private static final AtomicLong acknowledged = new AtomicLong();
    private static final AtomicLong errors = new AtomicLong();
    private static final AtomicLong failed = new AtomicLong();
    private static volatile boolean over;

    public static void main(String[] arguments) throws Exception {
        int clients = Integer.parseInt(System.getenv("BUSY_CLIENTS"));
        String name = System.getenv("BUSY_NAME");
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://127.0.0.1:" + System.getenv("PGIMBAL_PORT") + "/app");
        config.setUsername("app");
        config.setPassword("app-secret");
        config.setMaximumPoolSize(clients);
        config.setAutoCommit(false);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            CountDownLatch begun = new CountDownLatch(clients);
            List<Thread> workers = new ArrayList<>();
            for (int worker = 0; worker < clients; worker++) {
                String prefix = name + "-" + worker + "-";
                Thread thread = new Thread(() -> work(pool, prefix, begun));
                thread.start();
                workers.add(thread);
            }
            begun.await();
            System.out.println("busy");
            while (System.in.read() >= 0) {
                // The test closes it when the clients shall stop.
            }
            over = true;
            for (Thread worker : workers) {
                worker.join();
            }
        }
        System.out.printf("acknowledged %d errors %d failed %d%n", acknowledged.get(), errors.get(), failed.get());
    }

    private static void work(HikariDataSource pool, String prefix, CountDownLatch begun) {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        boolean hasFailed = false;
        for (int number = 0; !over; number++) {
            try {
                transaction(pool, prefix + number);
                acknowledged.incrementAndGet();
            } catch (SQLException error) {
                errors.incrementAndGet();
                hasFailed = true;
                System.err.println(prefix + number + ": " + error.getSQLState() + " " + error.getMessage());
            }
            if (number == 0) {
                begun.countDown();
            }
            // A burst, and then nobody wants anything for a while.
            pause(number % 5 == 4 ? random.nextInt(1800, 2200) : random.nextInt(10, 40));
        }
        if (hasFailed) {
            failed.incrementAndGet();
        }
    }

    private static void transaction(HikariDataSource pool, String id) throws SQLException {
        try (Connection connection = pool.getConnection();
                PreparedStatement insert =
                        connection.prepareStatement("insert into done (id) values (?)")) {
            insert.setString(1, id);
            insert.executeUpdate();
            try (PreparedStatement work = connection.prepareStatement("select pg_sleep(0.005)")) {
                work.execute();
            }
            connection.commit();
        }
    }

    private static void pause(int milliseconds) {
        for (int waited = 0; waited < milliseconds && !over; waited += 10) {
            try {
                Thread.sleep(Math.min(10, milliseconds - waited));
            } catch (InterruptedException interrupted) {
                return;
            }
        }
    }
}
