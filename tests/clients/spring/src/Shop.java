package shop;

import jakarta.persistence.Entity;
import jakarta.persistence.EntityManager;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.GenerationType;
import jakarta.persistence.Id;
import jakarta.persistence.LockModeType;
import jakarta.persistence.Table;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import javax.sql.DataSource;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;

/**
 * A Spring Boot application with the settings of deploy/examples/spring: Flyway migrates at the
 * start, then threads read and write through JPA and HikariCP, more of them than the pool of
 * pgimbal has server connections. tests/tests/examples.rs has the conversation.
 */
@SpringBootApplication
public class Shop {
    private static final int THREADS = 8;
    private static final int ROUNDS = 12;

    @Entity(name = "Item")
    @Table(name = "item")
    public static class Item {
        @Id
        @GeneratedValue(strategy = GenerationType.IDENTITY)
        Long id;
        String owner;
        int amount;
    }

    public static void main(String[] arguments) throws Exception {
        try (ConfigurableApplicationContext context = SpringApplication.run(Shop.class, arguments)) {
            EntityManager entities = context.getBean(EntityManager.class);
            JdbcTemplate jdbc = new JdbcTemplate(context.getBean(DataSource.class));
            TransactionTemplate writes = new TransactionTemplate(context.getBean(PlatformTransactionManager.class));
            TransactionTemplate reads = new TransactionTemplate(context.getBean(PlatformTransactionManager.class));
            reads.setReadOnly(true);

            check(jdbc.queryForObject("select count(*) from flyway_schema_history where success", Long.class), 2L);
            check(jdbc.queryForObject("select count(*) from pg_indexes where indexname = 'item_by_owner'", Long.class), 1L);
            each(thread -> work(thread, 0, entities, jdbc, writes, reads));
            look("the rotation");
            look("the restart");
            // Every server connection is opened with the new password.
            each(thread -> work(thread, 1, entities, jdbc, writes, reads));
            check(jdbc.queryForObject("select sum(amount) from item", Long.class), 2L * THREADS * ROUNDS * 3);
        }
        System.out.println("all done");
    }

    private static Void work(int thread, int part, EntityManager entities, JdbcTemplate jdbc,
            TransactionTemplate writes, TransactionTemplate reads) {
        String owner = "thread " + thread + " part " + part;
        for (int round = 1; round <= ROUNDS; round++) {
            Long id = writes.execute(status -> {
                Item item = new Item();
                item.owner = owner;
                item.amount = 1;
                entities.persist(item);
                return item.id;
            });
            writes.executeWithoutResult(status -> entities.find(Item.class, id, LockModeType.PESSIMISTIC_WRITE).amount += 2);
            try {
                writes.executeWithoutResult(status -> {
                    entities.find(Item.class, id).amount = 1000;
                    entities.flush();
                    throw new IllegalStateException("roll back");
                });
                throw new AssertionError("the error was lost");
            } catch (IllegalStateException expected) {
                check(expected.getMessage(), "roll back");
            }
            // As often as this a statement is prepared on the server.
            check(jdbc.queryForObject("select count(*) from item where owner = ?", Long.class, owner), (long) round);
            check(jdbc.queryForObject("select amount from item where id = ?", Integer.class, id), 3);
        }
        // A cursor: read-only, with a fetch size, row by row.
        int seen = reads.execute(status -> {
            try (Stream<Item> items = entities.createQuery("from Item where owner = :owner", Item.class)
                    .setParameter("owner", owner).setHint("org.hibernate.fetchSize", 3).getResultStream()) {
                return (int) items.count();
            }
        });
        check(seen, ROUNDS);
        return null;
    }

    private interface Work {
        Void of(int thread) throws Exception;
    }

    private static void each(Work work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        List<Callable<Void>> all = new ArrayList<>();
        for (int thread = 0; thread < THREADS; thread++) {
            int mine = thread;
            all.add(() -> work.of(mine));
        }
        for (Future<Void> one : threads.invokeAll(all)) {
            one.get();
        }
        threads.shutdown();
    }

    private static void look(String what) throws Exception {
        System.out.println("look at " + what);
        System.in.read();
    }

    private static void check(Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError("found " + found + " in place of " + expected);
        }
    }
}
