using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace FCtrans.Bench.SplitVms;

/// <summary>How a server did under a load.</summary>
internal readonly record struct Served(double PerSecond, double P50Milliseconds, double P99Milliseconds, long Requests);

/// <summary>
/// Asks a redis server for keys by Zipf's law (exponent 0.99; which keys are the frequent ones has nothing to do with where they lie), nine
/// reads to one write, over some connections, each of which sends its next request when it has its answer. Keys are named as redis-benchmark
/// names its random ones: <c>k__rand_int__</c>, twelve digits.
/// </summary>
internal sealed class ServerLoad(string host, int port, int keys, int valueBytes)
{
    public const int Connections = 8;

    private const double Exponent = 0.99;
    private const int WriteEvery = 10;
    private const int KeysAtOnce = 5_000;
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(2);
    private static readonly byte[] s_get = "GET"u8.ToArray();
    private static readonly byte[] s_set = "SET"u8.ToArray();

    /// <summary>Done by the server itself. Contents that neither compress nor repeat within a page.</summary>
    private static readonly byte[] s_fill = """
        local size = tonumber(ARGV[4])
        for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
            local at = (i * 7919) % (#ARGV[3] - size) + 1
            redis.call('SET', string.format('k%012d', i), string.sub(ARGV[3], at, at + size - 1))
        end
        return redis.call('DBSIZE')
        """u8.ToArray();

    private readonly double[] _upTo = Distribution(keys);

    /// <summary>Makes all keys.</summary>
    public void Fill()
    {
        using var client = new RedisClient(host, port, s_timeout);
        byte[] content = new byte[64 << 10];
        new Random(1).NextBytes(content);
        for (int key = 0; key < keys; key += KeysAtOnce)
        {
            client.Call("EVAL"u8.ToArray(), s_fill, Ascii(0), Ascii(key), Ascii(Math.Min(key + KeysAtOnce, keys)), content, Ascii(valueBytes));
        }

        long there = client.Call("DBSIZE"u8.ToArray());
        if (there != keys)
        {
            throw new InvalidDataException($"The server has {there} keys, not {keys}.");
        }
    }

    public Served Run(TimeSpan duration, int seed)
    {
        var latencies = new List<double>[Connections];
        var failures = new Exception?[Connections];
        long began = Stopwatch.GetTimestamp();
        Thread[] threads = [.. Enumerable.Range(0, Connections).Select(i => new Thread(() =>
        {
            try
            {
                latencies[i] = Ask(began, duration, new Random(seed * Connections + i));
            }
            catch (Exception e)
            {
                failures[i] = e;
            }
        }))];
        Array.ForEach(threads, t => t.Start());
        Array.ForEach(threads, t => t.Join());
        if (failures.FirstOrDefault(f => f is not null) is { } failure)
        {
            throw new IOException("The server's answers could not be had.", failure);
        }

        double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
        double[] all = [.. latencies.SelectMany(l => l).Order()];
        return new(all.Length / seconds, all[all.Length / 2], all[all.Length * 99 / 100], all.Length);
    }

    /// <summary>Milliseconds of each request.</summary>
    private List<double> Ask(long began, TimeSpan duration, Random random)
    {
        using var client = new RedisClient(host, port, s_timeout);
        var latencies = new List<double>();
        byte[] value = new byte[valueBytes];
        while (Stopwatch.GetElapsedTime(began) < duration)
        {
            byte[] key = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"k{Pick(random):D12}"));
            bool write = random.Next(WriteEvery) == 0;
            if (write)
            {
                random.NextBytes(value);
            }

            long sent = Stopwatch.GetTimestamp();
            long length = write ? client.Call(s_set, key, value) : client.Call(s_get, key);
            latencies.Add(Stopwatch.GetElapsedTime(sent).TotalMilliseconds);
            if (!write && length != valueBytes)
            {
                throw new InvalidDataException($"A value came back with {length} bytes, not {valueBytes}.");
            }
        }

        return latencies;
    }

    private int Pick(Random random)
    {
        int found = Array.BinarySearch(_upTo, random.NextDouble());
        long rank = Math.Min(found < 0 ? ~found : found, keys - 1);
        // A prime that no number of keys here has as a factor: each rank has a key of its own, far from its neighbours'.
        return (int)(rank * 2_654_435_761 % keys);
    }

    private static double[] Distribution(int keys)
    {
        var upTo = new double[keys];
        double sum = 0;
        for (int rank = 0; rank < keys; rank++)
        {
            upTo[rank] = sum += 1 / Math.Pow(rank + 1, Exponent);
        }

        for (int rank = 0; rank < keys; rank++)
        {
            upTo[rank] /= sum;
        }

        return upTo;
    }

    private static byte[] Ascii(int number) => Encoding.ASCII.GetBytes(number.ToString(CultureInfo.InvariantCulture));
}
