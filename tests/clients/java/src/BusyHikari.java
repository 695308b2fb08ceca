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
 * A busy HikariCP over pgjdbc. By default it asks a connection whether it lives when that has lain
 * idle for more than half a second; its clients then work in waves, all at the same time, for the
 * pool gives the same few connections to clients that take turns. With
 * com.zaxxer.hikari.aliveBypassWindowMs=0 it always asks, and they never pause for long.
 * tests/src/busy_pool.rs has the conversation.
 */
public final class BusyHikari {
    private static final AtomicLong acknowledged = new AtomicLong();
    private static final AtomicLong errors = new AtomicLong();
    private static final AtomicLong failed = new AtomicLong();
    private static final boolean asksAlways = Integer.getInteger("com.zaxxer.hikari.aliveBypassWindowMs", 500) == 0;
    private static final double pause = Double.parseDouble(System.getenv("BUSY_PAUSE"));
    private static final int WAVE = 1000;
    private static final int BETWEEN_WAVES = 2000;
    private static volatile boolean over;

    public static void main(String[] arguments) throws Exception {
        int clients = Integer.parseInt(System.getenv("BUSY_CLIENTS"));
        String name = System.getenv("BUSY_NAME");
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://127.0.0.1:" + System.getenv("PGIMBAL_PORT") + "/app");
        config.setUsername(System.getenv().getOrDefault("BUSY_USER", "app"));
        config.setPassword(System.getenv().getOrDefault("BUSY_PASSWORD", "app-secret"));
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
            if (asksAlways) {
                pause((int) (random.nextDouble(0.5, 1.5) * pause * 1000));
                continue;
            }
            pause(random.nextInt(20, 80));
            long at = System.nanoTime() / 1_000_000 % (WAVE + BETWEEN_WAVES);
            if (at >= WAVE) {
                pause((int) (WAVE + BETWEEN_WAVES - at));
            }
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
