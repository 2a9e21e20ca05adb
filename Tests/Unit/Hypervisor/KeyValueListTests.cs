using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

public sealed class KeyValueListTests
{
    [Theory]
    [InlineData("socket,id=mon,path=/run/a,,b,server=on", "backend", "backend=socket;id=mon;path=/run/a,b;server=on")]
    [InlineData("/m,server,nowait", "path", "path=/m;server=on;nowait=on")]
    [InlineData("/a=b,server", "path", "/a=b;server=on")]
    [InlineData("q35", "type", "type=q35")]
    [InlineData("", "type", "type=")]
    [InlineData("a=1,a=2", null, "a=1;a=2")]
    [InlineData("a=,b==,,=", null, "a=;b==,=")]
    public void Pairs_are_read_as_QEMU_reads_them(string text, string? impliedKey, string expected)
        => Assert.Equal(expected.Split(';'), KeyValueList.Parse(text, impliedKey).Pairs.Select(p => $"{p.Key}={p.Value}"));

    [Fact]
    public void The_last_of_equal_keys_counts()
    {
        var list = KeyValueList.Parse("share=off,share=on");
        Assert.True(list.IsOn("share"));
        Assert.False(list.IsOn("other"));
        Assert.True(list.IsOn("other", otherwise: true));
        list.Set("share", "off");
        Assert.Equal("share=off", list.Format());
    }

    [Fact]
    public void JSON_members_become_pairs()
    {
        var list = KeyValueList.Parse("""{"qom-type":"memory-backend-file","id":"pc.ram","share":true,"size":4294967296,"cache":{"direct":false},"host-nodes":[0,1]}""");
        Assert.Equal("memory-backend-file", list["qom-type"]);
        Assert.Equal("4294967296", list["size"]);
        Assert.True(list.IsOn("share"));
        Assert.Equal("off", list["cache.direct"]);
        Assert.Equal("1", list["host-nodes.1"]);
    }

    [Theory]
    [InlineData("{")]
    [InlineData("{\"a\":}")]
    [InlineData("{\"a\":1,\"a\":")]
    public void Broken_JSON_has_no_members(string text) => Assert.Empty(KeyValueList.Parse(text).Pairs);

    [Fact]
    public void JSON_nested_without_end_has_no_members()
        => Assert.Empty(KeyValueList.Parse("{\"a\":" + new string('[', 100_000)).Pairs);

    [Fact]
    public void JSON_with_one_name_twice_has_no_members()
        => Assert.Empty(KeyValueList.Parse("""{"id":"a","id":"b"}""").Pairs);

    [Theory]
    [InlineData("a,b=c,,d,e=,f=g")]
    [InlineData("x=1,,,y=2")]
    public void What_is_written_reads_the_same(string text)
    {
        var list = KeyValueList.Parse(text, "first");
        Assert.Equal(list.Pairs, KeyValueList.Parse(list.Format("first"), "first").Pairs);
        Assert.Equal(list.Pairs, KeyValueList.Parse(list.Format(), "first").Pairs);
    }

    [Theory]
    [InlineData("4G", 1, 4L << 30)]
    [InlineData("1.5g", 1, 3L << 29)]
    [InlineData("4096", 1 << 20, 4L << 30)]
    [InlineData("0x1000", 1, 4096)]
    [InlineData("2T", 1, 2L << 40)]
    [InlineData("512B", 1 << 20, 512)]
    [InlineData("-1", 1, 0)]
    [InlineData("1e3", 1, 0)]
    [InlineData("G", 1, 0)]
    [InlineData("0xffffffffffffffff", 1, 0)]
    [InlineData("99999999999999999999999G", 1, 0)]
    [InlineData("72057594037927937P", 1, 0)]
    [InlineData(null, 1, 0)]
    public void Sizes(string? text, long unit, long bytes) => Assert.Equal(bytes, ByteSize.Parse(text, unit));
}
