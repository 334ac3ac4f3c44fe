// JavaScript that a JIT compiles: small objects, integers, a map, a sort, a string. As often as the argument says.
function Vec(x,y){this.x=x;this.y=y}
Vec.prototype.add=function(o){return new Vec(this.x+o.x,this.y+o.y)};
function work(){
let m=new Map(),s=0,v=new Vec(0,0);
for(let i=0;i<6e6;i++){v=v.add(new Vec(i&7,i%3));s=(s*31+i)|0;if((i&15)==0)m.set(i%5003,s)}
let a=[];for(let i=0;i<400000;i++)a.push((i*7919)%1000003);a.sort((x,y)=>x-y);
let t='';for(let i=0;i<300000;i++)t+=String.fromCharCode(97+i%26);
console.log(s,v.x,v.y,m.size,a[1000],t.replace(/[aeiou]/g,'').length);
}
for(let n=+process.argv[2]||1;n>0;n--)work();
