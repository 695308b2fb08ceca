package reads;

import jakarta.persistence.Entity;
import jakarta.persistence.EntityManager;
import jakarta.persistence.Id;
import jakarta.persistence.PersistenceContext;
import jakarta.persistence.Table;
import java.util.List;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.stereotype.Service;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.annotation.Propagation;
import org.springframework.transaction.annotation.Transactional;
import org.springframework.transaction.support.TransactionTemplate;

/**
 * Reads by Hibernate, in transactions of Spring's and outside, as docs/reads.md has them.
 * tests/tests/reads/frameworks.rs says what the variables mean.
 */
@SpringBootApplication
public class Reads {
    private static final String WAY = System.getenv("READS_OF");
    private static final String DATABASE = System.getenv("READS_DATABASE");
    private static final int READS = Integer.parseInt(System.getenv("READS"));
    /** What an application does between two requests, in milliseconds. */
    private static final int PAUSE = Integer.parseInt(System.getenv("READS_PAUSE"));
    private static final int CONNECTIONS = Integer.parseInt(System.getenv("READS_CONNECTIONS"));

    @Entity(name = "Item")
    @Table(name = "items")
    public static class Item {
        @Id
        Integer id;
        String name;
    }

    @Service
    public static class Items {
        @PersistenceContext
        EntityManager entities;

        public Object read(int step) {
            return switch (step % 3) {
                case 0 -> entities.find(Item.class, step);
                case 1 -> entities.createQuery("select count(i) from Item i", Long.class).getSingleResult();
                default -> entities.createQuery("from Item where name like 'name%' order by id", Item.class)
                        .setMaxResults(5).getResultList();
            };
        }

        @Transactional(readOnly = true)
        public Object readInReadOnly(int step) {
            return read(step);
        }

        @Transactional
        public Object readInOther(int step) {
            return read(step);
        }

        @Transactional
        public void write(int id, String name) {
            Item item = entities.find(Item.class, id);
            if (item == null) {
                item = new Item();
                item.id = id;
                entities.persist(item);
            }
            item.name = name;
        }

        @Transactional(readOnly = true)
        public List<String> names(int id) {
            return entities.createQuery("select name from Item where id = :id", String.class)
                    .setParameter("id", id).getResultList();
        }

        @Transactional(readOnly = true, propagation = Propagation.REQUIRES_NEW)
        public List<String> namesOnAnotherConnection(int id) {
            return names(id);
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("spring.datasource.url", "jdbc:postgresql://127.0.0.1:"
                + System.getenv("PGIMBAL_PORT") + "/" + DATABASE);
        System.setProperty("spring.datasource.username", "app");
        System.setProperty("spring.datasource.password", "app-secret");
        System.setProperty("spring.datasource.hikari.maximum-pool-size", String.valueOf(CONNECTIONS));
        System.setProperty("spring.datasource.hikari.auto-commit",
                String.valueOf(!WAY.contains("without autocommit")));
        System.setProperty("spring.flyway.enabled", "false");
        System.setProperty("spring.main.banner-mode", "off");
        System.setProperty("logging.level.root", "error");
        try (ConfigurableApplicationContext context = SpringApplication.run(Reads.class, arguments)) {
            Items items = context.getBean(Items.class);
            if (WAY.contains("own writes")) {
                System.out.println("stale " + writeAndReadBack(items, context.getBean(PlatformTransactionManager.class)));
            } else {
                read(items);
            }
        }
    }

    private static void read(Items items) throws InterruptedException {
        for (int step = 0; step < READS; step++) {
            Thread.sleep(PAUSE);
            if (WAY.contains("outside of transactions")) {
                items.read(step);
            } else if (WAY.contains("in writing transactions")) {
                items.readInOther(step);
            } else {
                items.readInReadOnly(step);
            }
        }
    }

    /** Reads by the connection that has written, and with a second one by both at once. */
    private static int writeAndReadBack(Items items, PlatformTransactionManager transactions) throws InterruptedException {
        TransactionTemplate both = new TransactionTemplate(transactions);
        both.setReadOnly(true);
        int stale = 0;
        for (int step = 0; step < READS; step++) {
            int id = 1000 + step / 2;
            List<String> written = List.of(DATABASE + ", " + CONNECTIONS + " connections, " + step);
            items.write(id, written.get(0));
            for (int pause : new int[] {PAUSE, 0}) {
                if (CONNECTIONS == 1) {
                    stale += items.names(id).equals(written) ? 0 : 1;
                } else {
                    stale += both.execute(status -> (items.names(id).equals(written) ? 0 : 1)
                            + (items.namesOnAnotherConnection(id).equals(written) ? 0 : 1));
                }
                // Behind the pause a replica has what was written.
                Thread.sleep(pause);
            }
        }
        return stale;
    }
}
